"""The form "published": the way of the released programs (train.py says what that means)."""
import math
import random
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

import data as D
import hard as H
import metrics
import models as M
from form import Form


class Published(Form):
    name = "published"

    class ops(M.Ops):
        @staticmethod
        def project(p, m, items):
            return F.linear(p[f"{m}_embedding.weight"], p[f"{m}_trs.weight"], p[f"{m}_trs.bias"])[items]

    def setup(self, features):
        self.s.skip_idle = False
        if self.compile == "on":
            self.notes.append("--compile on: nothing of this form is compiled, as in the released programs")
        data, N = self.data, self.data.U + self.data.I
        self.history = [set(data.items_of(u).tolist()) for u in range(data.U)]
        self.train_list = data.train_items.tolist()
        self.rng = random.Random(self.seed)
        self.rows = np.arange(len(data.train_u))
        self.np_rng = np.random.default_rng(self.seed)
        if self.s.model != "BPR":
            self.full_graph = self.coo(*D.user_item_graph(data.pair_u, data.pair_i, data.U, data.I), N)
            self.graphs.user_item = self.full_graph
        if features:
            lists = []
            for x in features.values():
                x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=1e-12)
                lists.append(torch.topk(x @ x.T, min(self.s.knn_k, len(x)), dim=1).indices)      # the whole I x I matrix
            self.graphs.item_item = self.coo(*D.knn_values(lists, D.modality_weights(self.modalities, self.s.mm_image_weight), data.I), data.I)
        if self.s.sampler == "popularity":
            count = torch.bincount(torch.from_numpy(data.train_i), minlength=data.I)
            self.popularity = H.popularity(count, self.s.popularity_power).tolist()
        if self.s.model == "CCDRec":
            self.member = torch.zeros(data.U, data.I, dtype=torch.bool)
            self.member[torch.from_numpy(data.pair_u), torch.from_numpy(data.pair_i)] = True
            self.member = self.member.to(self.device)
        for n in M.trained(self.p, self.s):
            self.p[n].requires_grad_(True)
        self.optimizer = torch.optim.Adam([x for x in self.p.values() if x.requires_grad], lr=self.s.learning_rate)
        self.held = {split: self.held_lists(split) for split in ("valid", "test")}

    def coo(self, index, value, n):
        return torch.sparse_coo_tensor(index, value, (n, n), check_invariants=False).coalesce().to(self.device)

    def prune(self):
        if self.n_keep == len(self.weight):
            return
        data = self.data
        keep = torch.multinomial(self.weight, self.n_keep, generator=self.generator).cpu() if len(self.weight) < 1 << 24 \
            else D.prune(self.weight, self.n_keep, self.generator).cpu()          # multinomial takes at most 2^24 categories
        u, i = torch.from_numpy(data.pair_u)[keep], torch.from_numpy(data.pair_i)[keep]
        self.graphs.user_item = self.coo(*D.user_item_graph(u, i, data.U, data.I), data.U + data.I)

    def negative(self, u, draw=None):
        for _ in range(1000):
            i = draw() if draw else self.rng.choice(self.train_list)
            if i not in self.history[u]:
                break
        return i                       # a user with every training item keeps the last draw

    def draw_negatives(self, users, n):
        return torch.tensor([[self.negative(u) for u in users.tolist()] for _ in range(n)], device=self.device)

    def draw_popular(self, users):
        return torch.tensor([self.negative(u, lambda: self.rng.choices(range(self.data.I), self.popularity)[0]) for u in users.tolist()], device=self.device)

    def choose_layers(self, h_u, layers, positives, candidates, alpha):
        return H.mixed_choice(h_u, layers, positives, candidates, alpha)     # as released: every candidate mixed, a tensor (L+1,B,N,d)

    def batches(self, stage):
        with self.clock("sample"):
            self.np_rng.shuffle(self.rows)
        B = self.s.train_batch_size
        for b in range(0, len(self.rows), B):
            with self.clock("sample"):
                rows = self.rows[b:b + B]
                users, positives = self.data.train_u[rows], self.data.train_i[rows]
                batch = SimpleNamespace(users=torch.from_numpy(users).to(self.device), positives=torch.from_numpy(positives).to(self.device),
                                        negatives=self.draw_negatives(users, self.s.n_neg), curricular=None, frozen=None)

                def choose(pool, batch=batch):
                    candidates = self.draw_candidates()
                    return self.pick(pool, batch.positives, candidates, self.member[batch.users][:, candidates], batch.negatives[0])

                if stage not in (None, "own"):
                    batch.draw_again = lambda choose=choose: choose(self.pools[stage])
                    batch.curricular = batch.draw_again()
            yield batch, choose if stage == "own" else None

    def optimise(self, diffusion, factor):
        if factor != 1:
            for x in self.optimizer.param_groups[0]["params"]:
                if x.grad is not None:
                    x.grad *= factor
        self.optimizer.step()
        self.optimizer.zero_grad()     # as released: since PyTorch 2.0 the gradients are dropped, not overwritten with zeros

    def run_batch(self, batch, choose):
        loss = super().run_batch(batch, choose).item()
        if math.isnan(loss):
            raise SystemExit("the loss is not a number")
        return loss

    @torch.no_grad()
    def reverse_process(self):
        everything = torch.arange(self.data.I, device=self.device)
        projections = [self.ops.project(self.p, m, everything) for m in self.modalities]
        I = self.data.I   # noqa: E741
        return M.reverse(self.p, projections, self.s, self.noise(I), lambda t: self.noise(I))

    def held_lists(self, split):
        users, items = self.data.held[split]
        out = {}
        for u, i in zip(users.tolist(), items.tolist()):
            out.setdefault(u, []).append(i)
        return out

    @torch.no_grad()
    def evaluate(self, split, block=4096):
        with self.clock("evaluation"):
            users, top = list(self.held[split]), []
            for b in range(0, len(users), block):
                some = users[b:b + block]
                graphs = SimpleNamespace(user_item=self.full_graph if self.s.model != "BPR" else None, item_item=self.graphs.item_item)
                H_u, H_i = M.final_tables(self.p, graphs, self.s, self.pools and self.pools[3])       # again for every batch
                score = H_u[some] @ H_i.T
                seen = [(r, i) for r, u in enumerate(some) for i in self.history[u]]
                r, i = torch.tensor(seen, device=self.device).T
                score[r, i] = -1e10
                top.append(torch.topk(score, min(max(metrics.KS), score.shape[1]), dim=1).indices.cpu().numpy())
            return metrics.metrics_per_user(np.concatenate(top), [self.held[split][u] for u in users]) if users else {}

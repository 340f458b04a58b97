"""The form "published": the way of the released programs (train.py says what that means)."""
import math
import random
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

import data as D
import hard as H
import lattice
import metrics
import models as M
import realhns
import unet
from form import Form


def dense_knn(x, k):
    """(I,I): the k largest cosine similarities of each row, 0 elsewhere."""
    x = F.normalize(x, dim=1, eps=1e-12)
    value, index = torch.topk(x @ x.T, k, dim=1)
    return torch.zeros(len(x), len(x), device=x.device).scatter(1, index, value)


def dense_lap(C):
    """Row sums on both sides, as two products of whole matrices."""
    D_half = torch.diag(lattice.scale(C.sum(1)))
    return D_half @ C @ D_half


class Published(Form):
    name = "published"

    class ops(M.Ops):
        @staticmethod
        def project(p, m, items):
            return F.linear(p[f"{m}_embedding.weight"], p[f"{m}_trs.weight"], p[f"{m}_trs.bias"])[items]

        @staticmethod
        def latent_graph(p, latent, lambda_coeff):
            """S (I,I), or the constant one of the epoch."""
            if latent.built is not None:
                return latent.built
            w = torch.softmax(p["modal_weight"], 0)
            learned = sum(x * dense_knn(lattice.all_projected(p, m), latent.k) for x, m in zip(w, latent.frozen))
            return (1 - lambda_coeff) * dense_lap(learned) + lambda_coeff * sum(x * O for x, O in zip(w, latent.frozen.values()))

        latent_mm = staticmethod(torch.mm)
        unet = staticmethod(unet.published)

        @staticmethod
        def map_rows(tables, index, weight, bias):
            """All rows mapped, then those that are wanted."""
            x = F.linear(torch.cat(tables, 1) if len(tables) > 1 else tables[0], weight, bias)
            return x if index is None else x[index]

        @staticmethod
        def messages(graphs, m, k, x, C):
            """A row of width c for each direction of each edge, then the mean of those that arrive at a node."""
            y, e = x @ C, graphs.edges
            return torch.zeros_like(y).index_add(0, e.target, y[e.source]) / e.degree[:, None]

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
        self.n_drawn = 1 if self.s.model == "SLMRec" else self.s.n_neg        # which reads none of them
        if self.s.model == "MMGCN":
            source, target = D.mean_graph(data.pair_u, data.pair_i, data.U, data.I)[0].flip(0).to(self.device)
            self.graphs.edges = SimpleNamespace(source=source, target=target, degree=torch.bincount(target, minlength=N).clamp(min=1))
            self.full_graph = None
        elif self.s.model != "BPR" and M.backbone(self.s) != "LATTICE":
            self.full_graph = self.coo(*D.user_item_graph(data.pair_u, data.pair_i, data.U, data.I), N)
            self.graphs.user_item = self.full_graph
        if M.backbone(self.s) == "LATTICE":
            self.full_graph = self.graphs.user_item = self.coo(*D.row_graph(data.pair_u, data.pair_i, data.U, data.I), N)
            k = min(self.s.knn_k, data.I)
            self.graphs.latent = SimpleNamespace(k=k, frozen={m: dense_lap(dense_knn(x, k)) for m, x in features.items()}, built=None)
        elif M.has_features(self.s):
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
        if M.diffuses(self.s) and self.s.estimator == "unet":
            self.p = unet.to_published(self.p, unet.Published().to(self.device))
        for n in M.trained(self.p, self.s):
            self.p[n].requires_grad_(True)
        self.optimizer = torch.optim.Adam([x for x in self.p.values() if x.requires_grad], lr=self.s.learning_rate, weight_decay=self.s.weight_decay)
        self.held = {split: self.held_lists(split) for split in ("valid", "test")}

    def coo(self, index, value, n):
        return torch.sparse_coo_tensor(index, value, (n, n), check_invariants=False).coalesce().to(self.device)

    def prune(self):
        if self.n_keep == len(self.weight):
            return
        data = self.data
        weight = self.race_weights()
        keep = torch.multinomial(weight, self.n_keep, generator=self.generator) if len(weight) < 1 << 24 \
            else D.prune(weight, self.n_keep, self.generator)                     # multinomial takes at most 2^24 categories
        self.graphs.user_item = self.coo(*self.kept_graph(keep), data.U + data.I)

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

    @torch.no_grad()
    def representations(self):
        latent = self.graphs.latent and SimpleNamespace(**{**vars(self.graphs.latent), "built": None})
        graphs = SimpleNamespace(**{**vars(self.graphs), "user_item": self.full_graph if self.s.model != "BPR" else None, "latent": latent})
        return M.final_tables(self.p, graphs, self.s, self.pools and self.pools[3], self.ops)

    def band_table(self, H_u, H_i, places, block=4096):
        """(U,N) candidates of RealHNS: a ranking of all items for every user."""
        out, absent = [], torch.ones(self.data.I, dtype=torch.bool, device=self.device)
        absent[self.train_list] = False
        for b in range(0, self.data.U, block):
            score = (H_u[b:b + block] @ H_i.T).masked_fill_(absent, -math.inf)
            r, i = torch.tensor([(r, i) for r, items in enumerate(self.history[b:b + block]) for i in items], device=self.device).view(-1, 2).T
            score[r, i] = -math.inf
            out.append(realhns.candidates(score, places))
        return torch.cat(out)

    def projected_items(self, batch):
        return torch.arange(self.data.I, device=self.device)

    def keep_latent(self, S):
        self.graphs.latent.built = S.detach()

    def set_rate(self, rate):
        self.optimizer.param_groups[0]["lr"] = rate

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
                                        negatives=self.draw_negatives(users, self.n_drawn), curricular=None, frozen=None)

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
        # as released: since PyTorch 2.0 the gradients are dropped, not overwritten with zeros. LATTICE was published with a version that overwrites, and its
        # graph's parameters go on moving after the one gradient of an epoch (baselines.md 8.6)
        self.optimizer.zero_grad(set_to_none=self.graphs.latent is None)

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
        return M.reverse(self.p, projections, self.s, self.noise(I), lambda t: self.noise(I), lambda e, t: M.answers(self.p, self.s, e, projections, t, self.ops))

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
                H_u, H_i = self.representations()      # again for every batch, LATTICE's graph too
                score = H_u[some] @ H_i.T
                seen = [(r, i) for r, u in enumerate(some) for i in self.history[u]]
                r, i = torch.tensor(seen, device=self.device).T
                score[r, i] = -1e10
                top.append(torch.topk(score, min(max(metrics.KS), score.shape[1]), dim=1).indices.cpu().numpy())
            return metrics.metrics_per_user(np.concatenate(top), [self.held[split][u] for u in users]) if users else {}

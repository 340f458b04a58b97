"""Whole training loops in three forms, the same mathematics in each (models.py):

published   the way of the released programs: negatives drawn row by row in Python, all items projected at every step, dense Adam over
            everything, COO products, a dense (U,I) membership matrix, an I x I similarity matrix for the item graph, the propagation repeated
            for every batch of users in the evaluation, metrics user by user
tuned       only the batch's distinct items projected, gradients of features written by rows, fused Adam, CSR products in Horner form, one
            propagation per evaluation, vectorised sampling and metrics, the constant tokens of the reverse chain computed once;
            torch.compile where a try shows a gain; on CUDA the step is one CUDA graph
tuned-rows  the same with raw feature rows updated on demand (rows.py)

    python train.py --data FOLDER --model CCDRec --form tuned --epochs 5 --threads 2 --device cpu [--set key=value ...]

prints one JSON line: seconds by phase and epoch, losses, validation and test Recall@20, peak memory.
"""
import argparse
import json
import math
import os
import random
import resource
import sys
import time
import warnings
from collections import defaultdict
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

import data as D
import metrics
import models as M
import rows as R

warnings.filterwarnings("ignore", message=".*[Ss]parse.*")
PHASES = ("prune", "sample", "forward", "backward", "optimiser", "step", "reverse", "evaluation")   # "step": a CUDA graph is all three in one


class Clock:
    """Seconds by phase; on CUDA the device is waited for at the end of each (not inside a captured step)."""

    def __init__(self, device):
        self.cuda, self.seconds = device.type == "cuda", defaultdict(float)

    @contextmanager
    def __call__(self, phase):
        begin = time.perf_counter()
        yield
        if self.cuda:
            torch.cuda.synchronize()
        self.seconds[phase] += time.perf_counter() - begin

    def take(self):
        out, self.seconds = dict(self.seconds), defaultdict(float)
        return out


# ------------------------------------------------------------------------------------------------- what the forms share

class Form:
    def __init__(self, data, s, device="cpu", seed=999, compile="auto", graphs="auto"):
        self.data, self.s, self.device = data, s, torch.device(device)
        self.seed, self.compile, self.use_graphs = seed, compile, graphs
        self.clock, self.notes, self.steps = Clock(self.device), [], 0
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.modalities = list(data.features) if s.model in ("FREEDOM", "CCDRec") else []
        if s.model in ("FREEDOM", "CCDRec") and not self.modalities:
            raise SystemExit(f"{s.model} needs at least one NAME_feat.npy in the data folder")
        features = {m: torch.from_numpy(data.features[m]) for m in self.modalities}
        self.p = {k: x.to(self.device) for k, x in M.initial((data.U, data.I), features, s, torch.Generator().manual_seed(seed)).items()}
        self.graphs = SimpleNamespace(user_item=None, item_item=None)
        self.weight = torch.tensor(D.edge_weights(data), device=self.device)
        self.n_keep = D.kept_edges(len(data.pair_u), s.dropout if s.model in ("FREEDOM", "CCDRec") else 0)
        self.pools = None
        self.setup({m: x.to(self.device) for m, x in features.items()})

    # curriculum: None before the first pool, 0..3 a pool, "own" the representations of the current step
    def stage(self, epoch):
        s = self.s
        if s.model != "CCDRec" or not s.cns or (self.pools is None and epoch <= s.tau_end):
            return None
        if epoch > s.tau_end:
            return "own"
        first = s.first_stage or s.dtau
        return min(3, 0 if epoch < first else 1 + (epoch - first) // s.dtau)

    def draw_diffusion(self, batch):
        """Distinct items of the batch with multiplicities; mirrored steps and noise for CCDRec (spec 3.2)."""
        s = self.s
        if not M.needs_projection(s):
            return None
        items, count = torch.unique(torch.cat([batch.positives, batch.negatives.flatten()]), return_counts=True)
        d = SimpleNamespace(items=items, count=count, t=None, noise=None)
        if s.model == "CCDRec" and s.dma:
            d.t = self.draw_t(len(items))
            d.noise = torch.randn(len(items), s.embedding_size, device=self.device, generator=self.generator)
        return d

    def draw_t(self, n):
        T = self.s.timesteps
        half = n // 2 + 1 if self.s.mirrored_timesteps else n
        t = torch.randint(0, T, (half,), device=self.device, generator=self.generator)
        return torch.cat([t, T - 1 - t])[:n]

    def draw_candidates(self):
        C = max(1, math.floor(self.s.candidate_ratio * self.data.I))
        return torch.randint(0, self.data.I, (C,), device=self.device, generator=self.generator)

    def pick(self, pool, positives, candidates, seen, fallback):
        """Curricular negatives (spec 5): seen (B,C) bool marks excluded candidates; one of the k most similar others, uniformly."""
        a, b = pool[positives], pool[candidates]
        if self.s.cns_cosine:
            a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
        sim = (a @ b.T).masked_fill_(seen, -math.inf)
        k = max(1, math.floor(self.s.kappa * len(candidates)))
        top = torch.topk(sim, k, dim=1).indices
        admissible = (~seen).sum(1)
        x = torch.rand(len(positives), device=self.device, generator=self.generator, dtype=torch.float64)
        r = (x * admissible.clamp(max=k)).long()
        chosen = candidates[top.gather(1, r[:, None]).squeeze(1)]
        return torch.where(admissible > 0, chosen, fallback)

    def update(self, batch, diffusion, choose=None):
        """Forward, backward, Adam on given draws; choose(r) picks curricular negatives from the step's own representations. -> loss"""
        self.steps += 1
        self.before(diffusion)
        with self.clock("forward"):
            r = M.represent(self.p, self.graphs, diffusion, self.modalities, self.s, self.ops)
        if choose:
            with self.clock("sample"), torch.no_grad():
                batch.curricular = choose(r.items)
        with self.clock("forward"):
            loss = M.losses(r, batch, diffusion, self.s)["loss.total"]
        with self.clock("backward"):
            loss.backward()
        with self.clock("optimiser"):
            self.optimise(diffusion)
        return loss.detach()

    def before(self, diffusion):
        pass

    def epoch(self, n):
        """One epoch of training and, for CCDRec, the reverse process. -> losses of its steps"""
        if self.s.model in ("FREEDOM", "CCDRec"):
            with self.clock("prune"):
                self.prune()
        stage, out = self.stage(n), []
        for batch, choose in self.batches(stage):
            out.append(self.run_batch(batch, choose))
        with self.clock("optimiser"):
            self.after_epoch()
        if self.s.model == "CCDRec" and (self.s.dma or self.s.ndi):
            with self.clock("reverse"):
                self.pools = self.reverse_process()
        out = [float(x) for x in (torch.stack(out).tolist() if torch.is_tensor(out[0]) else out)]
        if not all(math.isfinite(x) for x in out):
            raise SystemExit(f"epoch {n}: the loss is not finite")
        return out

    def run_batch(self, batch, choose):
        with self.clock("sample"):
            diffusion = self.draw_diffusion(batch)
        return self.update(batch, diffusion, choose)

    def after_epoch(self):
        pass

    def noise(self, rows):
        return torch.randn(rows, self.s.embedding_size, device=self.device, generator=self.generator)


# ------------------------------------------------------------------------------------------------------------- published

class Published(Form):
    name = "published"

    class ops(M.Ops):
        @staticmethod
        def project(p, m, items):
            return F.linear(p[f"{m}_embedding.weight"], p[f"{m}_trs.weight"], p[f"{m}_trs.bias"])[items]

    def setup(self, features):
        self.s.skip_idle = False
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

    def negative(self, u):
        for _ in range(1000):
            i = self.rng.choice(self.train_list)
            if i not in self.history[u]:
                break
        return i                       # a user with every training item keeps the last draw

    def batches(self, stage):
        with self.clock("sample"):
            self.np_rng.shuffle(self.rows)
        B = self.s.train_batch_size
        for b in range(0, len(self.rows), B):
            with self.clock("sample"):
                rows = self.rows[b:b + B]
                users, positives = self.data.train_u[rows], self.data.train_i[rows]
                negatives = [[self.negative(u) for u in users.tolist()] for _ in range(self.s.n_neg)]
                batch = SimpleNamespace(users=torch.from_numpy(users).to(self.device), positives=torch.from_numpy(positives).to(self.device),
                                        negatives=torch.tensor(negatives, device=self.device), curricular=None, frozen=None)

                def choose(pool, batch=batch):
                    candidates = self.draw_candidates()
                    return self.pick(pool, batch.positives, candidates, self.member[batch.users][:, candidates], batch.negatives[0])

                if stage not in (None, "own"):
                    batch.curricular = choose(self.pools[stage])
            yield batch, choose if stage == "own" else None

    def optimise(self, diffusion):
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)

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


# ----------------------------------------------------------------------------------------------------------------- tuned

class LayerMean(torch.autograd.Function):
    """(X + A X + .. + A^L X)/(L+1) = (X + A (X + A (..)))/(L+1) for a symmetric CSR A: L fused products forward, L backward."""

    @staticmethod
    def forward(ctx, A, X, L):
        ctx.A, ctx.L = A, L
        return LayerMean.horner(A, X, L)

    @staticmethod
    def backward(ctx, G):
        return None, LayerMean.horner(ctx.A, G.contiguous(), ctx.L), None

    @staticmethod
    def horner(A, X, L):
        Y = X
        for _ in range(L):
            Y = torch.addmm(X, A, Y)
        return Y / (L + 1)


class Product(torch.autograd.Function):
    """S X with S and its transpose in CSR."""

    @staticmethod
    def forward(ctx, pair, X):
        ctx.pair = pair
        return pair[0] @ X

    @staticmethod
    def backward(ctx, G):
        return None, ctx.pair[1] @ G.contiguous()


class Tuned(Form):
    name, on_demand = "tuned", False

    def setup(self, features):
        data, s, N = self.data, self.s, self.data.U + self.data.I
        t = lambda a: torch.as_tensor(a, device=self.device)   # noqa: E731
        self.pair_u, self.pair_i, self.key, self.start = t(data.pair_u), t(data.pair_i), t(data.key), t(data.start)
        self.train_u, self.train_i, self.train_items = t(data.train_u), t(data.train_i), t(data.train_items)
        if s.model != "BPR":
            self.full_graph = self.graphs.user_item = D.csr(*D.user_item_graph(self.pair_u, self.pair_i, data.U, data.I), N, N)
        if features:
            index, value = D.item_graph(features, s.knn_k, s.mm_image_weight)
            self.graphs.item_item = (D.csr(index, value, data.I, data.I), D.csr(*D.transpose(index, value), data.I, data.I))
        self.splits = {split: metrics.Split(data, split, self.device) for split in ("valid", "test")}
        used = M.needs_projection(s)
        self.tables = [f"{m}_embedding.weight" for m in self.modalities] if used and s.train_features else []
        idle = set() if used else {n for m in self.modalities for n in (f"{m}_embedding.weight", f"{m}_trs.weight", f"{m}_trs.bias")}
        dense = [n for n in M.trained(self.p, s) if n not in self.tables and n not in idle]
        for n in dense:
            self.p[n].requires_grad_(True)
        self.gathered = {}

        form = self

        class ops(M.Ops):
            propagate = staticmethod(lambda A, X, L: LayerMean.apply(A, X, L))
            item_mm = staticmethod(lambda pair, X: Product.apply(pair, X))
            estimate = staticmethod(M.estimate_pooled)

            @staticmethod
            def project(p, m, items):
                x = p[f"{m}_embedding.weight"].index_select(0, items)
                if form.tables:
                    form.gathered[f"{m}_embedding.weight"] = x.requires_grad_(True)
                return F.linear(x, p[f"{m}_trs.weight"], p[f"{m}_trs.bias"])

        self.ops = ops
        self.chain, replay = chain_step, R.missed_steps
        wants = self.compile != "off" and s.model == "CCDRec"
        if wants and self.device.type == "cpu":
            ops.estimate = staticmethod(self.tried("estimator", M.estimate_pooled, self.example_estimator, int(1.8 * s.train_batch_size), True))
            self.chain = self.tried("reverse chain", chain_step, self.example_chain, CHAIN_BLOCK)
        if self.on_demand and self.compile != "off" and self.tables and self.device.type == "cpu":
            F_m = max(self.p[n].shape[1] for n in self.tables)
            example = lambda n: [torch.rand(n, w, device=self.device) for w in (F_m, F_m, F_m, R.UNROLL, R.UNROLL)]   # noqa: E731
            replay = self.tried("replay of missed steps", R.missed_steps, example, max(16, (1 << 18) // F_m))

        if self.on_demand:
            block = 1 << (16 if replay is R.missed_steps else 18)        # plain operations want their arrays in cache; fused ones stream
            self.by_rows = {n: R.RowAdam(self.p[n], s.learning_rate, replay, block) for n in self.tables}
        else:
            dense += self.tables
            for n in self.tables:
                self.p[n].grad = torch.zeros_like(self.p[n])
        self.written = None
        capture = self.device.type == "cuda" and self.use_graphs != "off" and not self.on_demand
        self.optimizer = torch.optim.Adam([self.p[n] for n in dense], lr=s.learning_rate, capturable=capture, **self.fastest_adam())
        self.graph = GraphStep(self) if capture else None

    def fastest_adam(self):
        try:
            torch.optim.Adam([torch.zeros(1, device=self.device, requires_grad=True)], fused=True)
            return dict(fused=True)
        except RuntimeError as e:
            self.notes.append(f"no fused Adam ({e}); foreach instead")
            return dict(foreach=True)

    # ---- torch.compile by trial

    def tried(self, what, plain, example, n, backward=False):
        """The compiled function if it compiles and, in --compile auto, is faster on example(n); else the plain one, and a note. Other
        numbers of rows are tried too, so that no recompilation falls into an epoch."""
        def once(f, x):
            with torch.set_grad_enabled(backward):
                y = f(*x)
                if backward:
                    y.sum().backward()
            return y.detach()

        def seconds(f, x):
            best = math.inf
            for _ in range(7):
                begin = time.perf_counter()
                once(f, x)
                best = min(best, time.perf_counter() - begin)
            return best

        begin, x = time.perf_counter(), example(n)
        try:
            compiled = torch.compile(plain, dynamic=True)
            if not torch.allclose(once(plain, x), once(compiled, x), rtol=1e-3, atol=1e-4):
                raise RuntimeError("compiled and plain results differ")
            for rows in (n - 3, max(2, n // 3)):
                once(compiled, example(rows))
            t_plain, t_compiled = seconds(plain, x), seconds(compiled, x)
        except Exception as e:   # no compiler, an unsupported operation: any failure means the plain function
            self.notes.append(f"{what}: not compiled ({type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''})")
            return plain
        use = self.compile == "on" or t_compiled < 0.97 * t_plain
        self.notes.append(f"{what}: {'compiled' if use else 'plain'} ({t_plain * 1e3:.2f} ms plain, {t_compiled * 1e3:.2f} ms compiled, "
                          f"tried in {time.perf_counter() - begin:.0f} s)")
        return compiled if use else plain

    def example_estimator(self, n):
        d = self.s.embedding_size
        leaf = lambda *shape: torch.randn(*shape, device=self.device).requires_grad_(True)   # noqa: E731
        tau = M.time_table(self.s.timesteps, d, torch.float32, self.device)[torch.randint(0, self.s.timesteps, (n,))]
        return leaf(n, d), [leaf(n, d) for _ in self.modalities], tau, leaf(d, d), leaf(d, d), leaf(d, d)

    def example_chain(self, n):
        d, m = self.s.embedding_size, len(self.modalities)
        r = lambda *shape: torch.randn(*shape, device=self.device)   # noqa: E731
        return r(n, d), r(n, d), r(3), r(d, 3 * d), r(n, m, d), r(n, m, d), r(n, m, d), r(n, m, m), r(d), r(d), r(d), r(()), r(n, m), r(n, m)

    # ---- one epoch

    def prune(self):
        if self.n_keep == len(self.weight):
            return
        keep = D.prune(self.weight, self.n_keep, self.generator)
        N = self.data.U + self.data.I
        A = D.csr(*D.user_item_graph(self.pair_u[keep], self.pair_i[keep], self.data.U, self.data.I), N, N)
        if self.graph:
            self.graph.set_graph(A)    # the captured step reads fixed buffers
        else:
            self.graphs.user_item = A

    def draw_negatives(self, users):
        """(n_neg,E): uniform over training items, drawn again while the user has it (a user with all of them keeps the 100th draw)."""
        shape = (self.s.n_neg, len(users))
        u = users.expand(shape).reshape(-1)
        pick = lambda n: self.train_items[torch.randint(0, len(self.train_items), (n,), device=self.device, generator=self.generator)]   # noqa: E731
        out, open_ = pick(len(u)), torch.arange(len(u), device=self.device)
        for _ in range(100):
            key = u[open_] * self.data.I + out[open_]
            at = torch.searchsorted(self.key, key).clamp_(max=len(self.key) - 1)
            open_ = open_[self.key[at] == key]
            if not len(open_):
                break
            out[open_] = pick(len(open_))
        return out.view(shape)

    def seen(self, users, candidates, total):
        """(B,C) bool: has the user a training row with the candidate; from the users' lists, never U x I. total: their summed lengths."""
        distinct, inverse = torch.unique(candidates, return_inverse=True)
        column = torch.full((self.data.I,), -1, device=self.device)
        column[distinct] = torch.arange(len(distinct), device=self.device)
        begin, length = self.start[users], self.start[users + 1] - self.start[users]
        row = torch.arange(len(users), device=self.device).repeat_interleave(length, output_size=total)
        at = torch.arange(total, device=self.device) + (begin - (length.cumsum(0) - length))[row]
        c = column[self.pair_i[at]]
        mask = torch.zeros(len(users), len(distinct) + 1, dtype=torch.bool, device=self.device)
        mask[row, c] = True            # -1 is the spare last column
        return mask[:, inverse]

    def batches(self, stage):
        s, B = self.s, self.s.train_batch_size
        with self.clock("sample"):
            order = torch.randperm(len(self.train_u), device=self.device, generator=self.generator)
            users, positives = self.train_u[order], self.train_i[order]
            negatives = self.draw_negatives(users)
            length = (self.start[users + 1] - self.start[users]).cpu().numpy() if stage is not None else None
        for b in range(0, len(order), B):
            with self.clock("sample"):
                batch = SimpleNamespace(users=users[b:b + B], positives=positives[b:b + B], negatives=negatives[:, b:b + B],
                                        curricular=None, frozen=None)

                def choose(pool, batch=batch, b=b):
                    candidates = self.draw_candidates()
                    seen = self.seen(batch.users, candidates, int(length[b:b + B].sum()))
                    return self.pick(pool, batch.positives, candidates, seen, batch.negatives[0])

                if stage not in (None, "own"):
                    batch.curricular = choose(self.pools[stage])
            yield batch, choose if stage == "own" else None

    def run_batch(self, batch, choose):
        if self.graph and choose is None and len(batch.users) == self.s.train_batch_size:
            with self.clock("step"):
                loss = self.graph.run(batch)
            if loss is not None:
                return loss
        return super().run_batch(batch, choose)

    def before(self, diffusion):
        if self.on_demand and self.tables:
            with self.clock("optimiser"):
                for x in self.by_rows.values():
                    x.catch_up(diffusion.items, self.steps - 1)

    def optimise(self, diffusion):
        if self.on_demand:
            for n, x in self.by_rows.items():
                x.step(diffusion.items, self.gathered[n].grad, self.steps)
        elif self.tables:
            for n in self.tables:      # the dense gradient is zero but for these rows; last step's are cleared by rows, too
                g = self.p[n].grad
                if self.written is not None:
                    g.index_fill_(0, self.written, 0)
                g.index_copy_(0, diffusion.items, self.gathered[n].grad)
            self.written = diffusion.items
        self.gathered.clear()
        self.optimizer.step()
        for group in self.optimizer.param_groups:
            for x in group["params"]:
                if x.requires_grad:
                    x.grad = None

    def after_epoch(self):
        if self.on_demand:
            for x in self.by_rows.values():
                x.flush(self.steps)

    @torch.no_grad()
    def reverse_process(self, start=None, noise=None):
        """The chain for blocks of items, each through all its steps; what the modalities and the steps contribute is computed once.
        start (I,d), noise(t) (I,d): given draws, for checks."""
        p, s, d, T = self.p, self.s, self.s.embedding_size, self.s.timesteps
        Q = p["item_id_embedding.weight"]
        W_q, W_k, W_v = M.estimator_weights(p)
        W = torch.cat([W_q / math.sqrt(d), W_k, W_v]).T.contiguous()                     # (d,3d)
        c = M.schedule(T, s.noise_schedule, s.noise_prediction_form)
        # rows as tensors of their own: compiled code would be guarded by the offsets of views
        apart = lambda x: [row.clone(memory_format=torch.contiguous_format) for row in x]   # noqa: E731
        coefficient = apart(torch.tensor([c.A, c.B, c.sigma], dtype=torch.float64).T.float().to(self.device))   # T+1 times (3)
        keep, blur = M.noise_levels(T, s.noise_schedule, Q.dtype, self.device)
        norm = lambda x: F.layer_norm(x, (d,), eps=1e-5)   # noqa: E731
        q_t, k_t, v_t = (norm(M.time_table(T, d, Q.dtype, self.device)) @ W).split(d, 1)  # (T,d) each
        q_ts, k_ts, v_ts, s_tt = apart(q_t), apart(k_t), apart(v_t), apart((q_t * k_t).sum(1))
        pools, states = [torch.empty_like(Q) for _ in range(4)], M.pool_steps(T)
        block = self.data.I if self.device.type == "cuda" else CHAIN_BLOCK
        for b in range(0, self.data.I, block):
            rows = slice(b, min(b + block, self.data.I))
            token = torch.stack([F.linear(p[f"{m}_embedding.weight"][rows], p[f"{m}_trs.weight"], p[f"{m}_trs.bias"])
                                 for m in self.modalities], 1)                           # (n,M,d)
            q_m, k_m, v_m = (norm(token) @ W).split(d, 2)
            q_m, k_m, v_m = q_m.contiguous(), k_m.contiguous(), v_m.contiguous()
            s_mm = q_m @ k_m.transpose(1, 2)
            s_mt, s_tm = apart((q_m @ k_t.T).permute(2, 0, 1)), apart((k_m @ q_t.T).permute(2, 0, 1))   # T times (n,M): row m, row tau
            n = len(token)
            e = keep[-1] * Q[rows] + blur[-1] * (self.noise(n) if start is None else start[rows])
            for j in range(T + 1):
                for g in range(4):
                    if states[g] == j:
                        pools[g][rows] = e
                t = T - j
                if t > 0:
                    z = torch.zeros_like(e) if t == 1 else self.noise(n) if noise is None else noise(t)[rows]     # sigma_1 = 0
                    e = self.chain(e, z, coefficient[t], W, q_m, k_m, v_m, s_mm, *(x[t - 1] for x in (q_ts, k_ts, v_ts, s_tt, s_mt, s_tm)))
        return pools

    @torch.no_grad()
    def evaluate(self, split):
        with self.clock("evaluation"):
            if getattr(self, "evaluated", None) != self.steps:       # one propagation serves validation and test
                graphs = SimpleNamespace(user_item=getattr(self, "full_graph", None), item_item=self.graphs.item_item)
                self.final = M.final_tables(self.p, graphs, self.s, self.pools and self.pools[3], self.ops)
                self.evaluated = self.steps
            of = self.splits[split]
            return metrics.metrics(metrics.hits(metrics.rank(*self.final, of), of), of.count) if len(of.users) else {}


CHAIN_BLOCK = 512


def chain_step(e, z, coefficient, W, q_m, k_m, v_m, s_mm, q_t, k_t, v_t, s_tt, s_mt, s_tm):
    """e_{t-1} from e_t (n,d) for the tokens e, modalities (n,M,d), tau (d); scores s_ab = q_a . k_b, the queries already over sqrt(d)."""
    q, k, v = (F.layer_norm(e, (e.shape[1],), eps=1e-5) @ W).chunk(3, 1)
    row_e = torch.cat([(q * k).sum(1, keepdim=True), (k_m * q[:, None]).sum(2), (q * k_t).sum(1, keepdim=True)], 1)           # (n,K)
    rows_m = torch.cat([(q_m * k[:, None]).sum(2)[..., None], s_mm, s_mt[..., None]], 2)                                      # (n,M,K)
    row_t = torch.cat([(k * q_t).sum(1, keepdim=True), s_tm, s_tt.expand(len(e), 1)], 1)
    w = torch.softmax(torch.cat([row_e[:, None], rows_m, row_t[:, None]], 1), 2).mean(1)                                      # (n,K)
    x0 = w[:, :1] * v + (w[:, 1:-1, None] * v_m).sum(1) + w[:, -1:] * v_t
    return coefficient[0] * x0 + coefficient[1] * e + coefficient[2] * z


class TunedRows(Tuned):
    name, on_demand = "tuned-rows", True


# ------------------------------------------------------------------------------------------------- CUDA graphs of the step

class GraphStep:
    """The whole step (draws of t and noise, forward, backward, Adam) captured once and replayed. Shapes are fixed: every occurrence of an
    item is a row; all rows of an item share its t and noise, so they are equal, and each brings 1/m of the fusion and of its gradient."""

    def __init__(self, form):
        self.form, self.captured, self.failed, self.warm = form, None, False, 0
        self.A = None

    def set_graph(self, A):
        if self.A is None:
            self.A = self.form.graphs.user_item = A
            return
        self.A.crow_indices().copy_(A.crow_indices())
        self.A.col_indices().copy_(A.col_indices())
        self.A.values().copy_(A.values())

    def step(self, batch):
        f = self.form
        diffusion = repeated_rows(f, batch)
        for x in f.optimizer.param_groups[0]["params"]:
            if x.grad is None:
                x.grad = torch.zeros_like(x)
            else:
                x.grad.zero_()
        ops = repeated_ops(f.ops, diffusion)
        r = M.represent(f.p, f.graphs, diffusion, f.modalities, f.s, ops)
        loss = M.losses(r, batch, diffusion, f.s)["loss.total"]
        loss.backward()
        for n in f.tables:
            f.p[n].grad.index_add_(0, diffusion.items, f.gathered[n].grad)
        f.gathered.clear()
        f.optimizer.step()
        return loss.detach()

    def run(self, batch):
        """-> loss, or None where the step cannot be captured (a note says why) or curricular negatives come or go."""
        f = self.form
        if self.failed:
            return None
        has = batch.curricular is not None
        if self.captured is None or self.captured[0] != has:
            try:
                self.capture(batch, has)
            except Exception as e:   # whatever the driver or an operation objects to: the eager step remains
                self.failed = True
                f.notes.append(f"no CUDA graph ({type(e).__name__}: {str(e).splitlines()[0][:100]})")
                return None
            return self.first_loss
        _, graph, static, loss = self.captured
        for name in ("users", "positives", "negatives") + (("curricular",) if has else ()):
            getattr(static, name).copy_(getattr(batch, name))
        graph.replay()
        f.steps += 1
        return loss.clone()

    def capture(self, batch, has):
        """Runs this batch eagerly (a real step, on a side stream, which also makes Adam's state), then captures the next one unexecuted."""
        f = self.form
        static = SimpleNamespace(users=batch.users.clone(), positives=batch.positives.clone(), negatives=batch.negatives.clone(),
                                 curricular=batch.curricular.clone() if has else None, frozen=None)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.first_loss = self.step(static)
        torch.cuda.current_stream().wait_stream(side)
        f.steps += 1
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(f.generator)
        with torch.cuda.graph(graph):
            loss = self.step(static)
        self.captured = (has, graph, static, loss)


def repeated_rows(form, batch, t_of=None, noise_of=None):
    """Diffusion of a batch with one row per occurrence. t_of (I), noise_of (I,d): given draws, for checks."""
    s, data = form.s, form.data
    if not M.needs_projection(s):
        return None
    items = torch.cat([batch.positives, batch.negatives.flatten()])
    d = SimpleNamespace(items=items, count=torch.ones_like(items), t=None, noise=None, share=None,
                        at=torch.arange(len(items), device=items.device).view(-1, len(batch.users)))
    if s.model == "CCDRec" and s.dma:
        if t_of is None:
            t_of = torch.zeros(data.I, dtype=torch.int64, device=items.device)
            t_of[items] = form.draw_t(len(items))     # of equal items, any one's step serves
            noise_of = form.noise(data.I)
        d.t, d.noise = t_of[items], noise_of[items]
        d.share = 1 / torch.zeros(data.I, device=items.device).index_add_(0, items, torch.ones(len(items), device=items.device))[items]
    return d


def repeated_ops(base, diffusion):
    class ops(base):
        @staticmethod
        def fuse(Hhat, items, rows, mu):
            return Hhat.index_add(0, items, (mu * diffusion.share)[:, None] * (rows - M.gather(Hhat, items)))
    return ops


FORMS = {f.name: f for f in (Published, Tuned, TunedRows)}


# ------------------------------------------------------------------------------------------------------------------- runs

class Run:
    """One (model, form) on one data folder: set up, then one epoch at a time."""

    def __init__(self, folder, form, s, device="cpu", threads=0, seed=999, compile="auto", graphs="auto"):
        if threads:
            torch.set_num_threads(threads)
        if device == "cuda" and not torch.cuda.is_available():
            raise SystemExit("--device cuda: this PyTorch sees no CUDA device")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False      # full float32 (spec 2.4)
        torch.manual_seed(seed)
        before, begin = self.peak_rss_mb(), time.perf_counter()
        data = D.load(folder, with_features=s.model in ("FREEDOM", "CCDRec"))
        loaded = time.perf_counter()
        self.form, self.n = FORMS[form](data, s, device, seed, compile, graphs), 0
        if device == "cuda":
            torch.cuda.synchronize()
        self.facts = dict(model=s.model, form=form, data=data.name, device=device, threads=torch.get_num_threads(), torch=torch.__version__,
                          mkl=torch.backends.mkl.is_available(), users=data.U, items=data.I, train=len(data.train_u), batch=s.train_batch_size,
                          seconds_load=loaded - begin, seconds_setup=time.perf_counter() - loaded, rss_before_data_mb=before)

    @staticmethod
    def peak_rss_mb():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6

    def epoch(self):
        """Trains and evaluates -> dict: seconds, phases, losses of the steps, Recall@20 and NDCG@20 of both splits."""
        f, begin = self.form, time.perf_counter()
        losses = f.epoch(self.n)
        trained = time.perf_counter()
        result = {split: f.evaluate(split) for split in ("valid", "test")}
        e = dict(epoch=self.n, seconds=time.perf_counter() - begin, seconds_train=trained - begin, phases=f.clock.take(), loss=sum(losses) / len(losses),
                 losses=losses, **{f"{split}_{m}": v for split, r in result.items() for m, v in r.items() if m.endswith("@20")})
        self.n += 1
        print(f"{self.facts['model']} {self.facts['form']} epoch {e['epoch']}: {e['seconds']:.2f} s "
              f"({', '.join(f'{k} {v:.2f}' for k, v in e['phases'].items())}), loss {e['loss']:.5f}, valid Recall@20 {e.get('valid_Recall@20', 0):.4f}",
              file=sys.stderr, flush=True)
        return e

    def end(self):
        cuda = self.facts["device"] == "cuda"
        return dict(peak_rss_mb=self.peak_rss_mb(), peak_cuda_mb=torch.cuda.max_memory_allocated() / 1e6 if cuda else None, notes=self.form.notes)


def on_command(run):
    """One line of JSON when set up, one for each line "epoch" on the standard input, a last one at its end (bench/race.py)."""
    say = lambda x: print(json.dumps(x), flush=True)   # noqa: E731
    say(run.facts)
    for line in sys.stdin:
        if line.strip() != "epoch":
            raise SystemExit(f"read '{line.strip()}' on the standard input, expected 'epoch' or its end")
        say(run.epoch())
    say(run.end())


def parse_settings(model, pairs):
    given = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            given[key] = json.loads(value)
        except json.JSONDecodeError:
            given[key] = value
    return M.settings(model=model, **given)


def arguments(parser):
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=999)
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto", help="auto: where a try is faster (tuned forms, CPU)")
    parser.add_argument("--graphs", choices=("auto", "off"), default="auto", help="CUDA graphs of the step (tuned, CUDA)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, named as in ccdrec train --help-keys")


def main():
    parser = argparse.ArgumentParser(description="Trains one model in one form and prints one JSON line.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", choices=list(M.MODEL_DEFAULTS), default="CCDRec")
    parser.add_argument("--form", choices=list(FORMS), default="tuned")
    parser.add_argument("--on-command", action="store_true", help="an epoch for every line 'epoch' on the standard input")
    arguments(parser)
    a = parser.parse_args()
    run = Run(a.data, a.form, parse_settings(a.model, a.set), a.device, a.threads, a.seed, a.compile, a.graphs)
    if a.on_command:
        return on_command(run)
    epochs = [run.epoch() for _ in range(a.epochs)]
    print(json.dumps({**run.facts, "epochs": epochs, **run.end()}), flush=True)


if __name__ == "__main__":
    main()

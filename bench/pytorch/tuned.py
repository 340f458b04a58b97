"""The forms "tuned" and "tuned-rows": what a competent user of PyTorch would write (train.py says what that means)."""
import math
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import data as D
import hard as H
import lattice
import metrics
import mmgcn
import models as M
import realhns
import rows as R
from form import Form
from graph_step import GraphStep
from latent_rows import LatentProduct, LatentRows
from mistakes import UserError


def by_library(A, Y, X=None):
    """A Y, or X + A Y, for a CSR A by the sparse BLAS."""
    return A @ Y if X is None else torch.addmm(X, A, Y)


def by_reduction(A, Y, X=None):
    """The same by torch.sparse.mm with a reduction, whose kernel is PyTorch's own."""
    out = torch.sparse.mm(A, Y, "sum")
    return out if X is None else out.add_(X)


def by_bags(A, Y, X=None):
    """The same as bags of embeddings: a row of A is a bag of rows of Y with weights."""
    out = F.embedding_bag(A.col_indices(), Y, A.crow_indices(), mode="sum", per_sample_weights=A.values(), include_last_offset=True)
    return out if X is None else out.add_(X)


PRODUCTS = {"library": by_library, "reduction": by_reduction, "bags": by_bags}


class LayerMean(torch.autograd.Function):
    """(X + A X + .. + A^L X)/(L+1) = (X + A (X + A (..)))/(L+1) for a CSR A and its transpose: L products forward, L backward."""

    @staticmethod
    def forward(ctx, product, A, A_T, X, L):
        ctx.product, ctx.A_T, ctx.L = product, A_T, L
        return LayerMean.horner(product, A, X, L)

    @staticmethod
    def backward(ctx, G):
        return None, None, None, LayerMean.horner(ctx.product, ctx.A_T, G.contiguous(), ctx.L), None

    @staticmethod
    def horner(product, A, X, L):
        Y = X
        for _ in range(L):
            Y = product(A, Y, X)
        return Y.div_(L + 1) if L else Y.clone()     # a product is an array of its own


class Product(torch.autograd.Function):
    """S X with S and its transpose in CSR."""

    @staticmethod
    def forward(ctx, product, pair, X):
        ctx.product, ctx.pair = product, pair
        return product(pair[0], X)

    @staticmethod
    def backward(ctx, G):
        return None, None, ctx.product(ctx.pair[1], G.contiguous())


def total_loss(P, Q, users, items, e_0, e0_hat, projection, u, positives, negatives, curricular, frozen, at, count, s):
    """models.losses, total alone: one product a pair (h_u . (h_p - h_n)) and a gather for each operand, whose way back is one index_add.
    negatives: n_neg times (B), not one array, since compiled code is for one stride (and, made for a view, for views of such an array). at (1 + n_neg,B): where the batch's positives and
    negatives are among the rows of the projections."""
    B, n_neg = len(u), len(negatives)
    rows = lambda x, at: x.index_select(0, at)   # noqa: E731
    bpr = M.bpr_eps if s.model in ("BPR", "LightGCN") else M.bpr_log
    h_u, h_p, h_n = rows(users, u), rows(items, positives), [rows(items, n) for n in negatives]
    above = lambda p, others: sum(bpr((h_u * (p - x)).sum(1)) for x in others) / len(others)   # noqa: E731
    total = above(h_p, h_n)
    if s.model == "CCDRec" and (frozen is not None or curricular is not None):
        total = (1 - s.omega) * total + s.omega * above(h_p, [frozen if frozen is not None else rows(items, curricular)])
    if e0_hat is not None and M.of_all_items(s):
        total = total + s.lambda_dm * F.mse_loss(e0_hat, e_0)
    elif e0_hat is not None:
        gap = e_0 - e0_hat
        total = total + s.lambda_dm * ((count.to(gap)[:, None] * gap * gap).sum() / ((1 + n_neg) * B * gap.shape[1]))
    if M.backbone(s) == "LATTICE":
        total = total + s.reg_weight * lattice.square_reg(h_u, h_p, h_n, s.train_batch_size)
    elif s.model in ("BPR", "LightGCN") and s.reg_weight > 0:
        norm = torch.linalg.vector_norm
        total = total + s.reg_weight / B * (norm(rows(P, u)) + norm(rows(Q, positives)) + sum(norm(rows(Q, n)) for n in negatives) / n_neg)
    elif projection and s.reg_weight > 0:
        for h in projection.values():
            total = total + s.reg_weight * above(rows(h, at[0]), [rows(h, x) for x in at[1:]])
    return total


class Tuned(Form):
    name, on_demand = "tuned", False

    def setup(self, features):
        data, s, N = self.data, self.s, self.data.U + self.data.I
        t = lambda a: torch.as_tensor(a, device=self.device)   # noqa: E731
        self.pair_u, self.pair_i, self.key, self.start = t(data.pair_u), t(data.pair_i), t(data.key), t(data.start)
        self.train_u, self.train_i, self.train_items = t(data.train_u), t(data.train_i), t(data.train_items)
        latent = M.backbone(s) == "LATTICE"
        self.transposed = None         # of the user-item graph, where that is not symmetric
        if s.model == "MMGCN":
            graph = D.mean_graph(self.pair_u, self.pair_i, data.U, data.I)
            self.full_graph = self.graphs.user_item = (D.csr(*graph, N, N), D.csr(*D.transpose(*graph), N, N))
        elif s.model != "BPR":
            graph = (D.row_graph if latent else D.user_item_graph)(self.pair_u, self.pair_i, data.U, data.I)
            self.full_graph = self.graphs.user_item = D.csr(*graph, N, N)
            self.transposed = D.csr(*D.transpose(*graph), N, N) if latent else None
        if latent:
            self.graphs.latent = LatentRows(features, s.knn_k)
        elif M.has_features(s):
            index, value = D.item_graph(features, s.knn_k, s.mm_image_weight)
            self.graphs.item_item = (D.csr(index, value, data.I, data.I), D.csr(*D.transpose(index, value), data.I, data.I))
        self.splits = {split: metrics.Split(data, split, self.device) for split in ("valid", "test")}
        used = M.needs_projection(s) or latent or M.has_masks(s)
        by_rows = used and s.train_features and not M.of_all_items(s)        # else every row is read in every step
        self.tables = [f"{m}_embedding.weight" for m in self.modalities] if by_rows else []
        idle = set() if used else {n for m in self.modalities for n in (f"{m}_embedding.weight", f"{m}_trs.weight", f"{m}_trs.bias")}
        dense = [n for n in M.trained(self.p, s) if n not in self.tables and n not in idle]
        for n in dense:
            self.p[n].requires_grad_(True)
        self.gathered = {}

        form, product = self, self.fastest_product()

        def way_back(A):
            return A if form.transposed is None else form.transposed

        class ops(M.Ops):
            propagate = staticmethod(lambda A, X, L: LayerMean.apply(product, A, way_back(A), X, L))
            layers = staticmethod(lambda A, X, L: M.layers((A, way_back(A)), X, L, ops.item_mm))
            item_mm = staticmethod(lambda pair, X: Product.apply(product, pair, X))
            latent_graph = staticmethod(lambda p, rows, c: rows.of(p, c, bool(form.tables)) if rows.built is None else rows.built)
            latent_mm = staticmethod(lambda S, X: Product.apply(product, S, X) if isinstance(S, tuple)
                                     else LatentProduct.apply(product, S.pair, S.column, S.value, X))
            estimate = staticmethod(M.estimate_pooled)

            @staticmethod
            def project(p, m, items):
                x = p[f"{m}_embedding.weight"]
                x = x if M.of_all_items(s) else x.index_select(0, items)
                if form.tables:
                    form.gathered[f"{m}_embedding.weight"] = x.requires_grad_(True)
                return F.linear(x, p[f"{m}_trs.weight"], p[f"{m}_trs.bias"])

            @classmethod
            def propagate_views(cls, A, P, starts, L):
                """All views in one propagation, side by side."""
                X = torch.cat([P.repeat(1, len(starts)), torch.cat(starts, 1)])
                return cls.propagate(A, X, L).split(P.shape[1], 1)

            @staticmethod
            def start(p, graphs, m):
                if f"{m}.mlp.weight" not in p:
                    return form.constant[m].x
                return torch.cat([form.constant[m].users, F.normalize(mmgcn.item_start(p, m), dim=1, eps=1e-12)])

            @staticmethod
            def messages(graphs, m, k, x, C):
                if k == 1 and form.constant[m].mean is not None:
                    return form.constant[m].mean @ C
                return ops.item_mm(graphs.user_item, x @ C)

        self.ops = ops
        if s.model == "MMGCN":
            self.constant = {m: self.constants_of(m, product) for m in self.modalities}
        self.chain, replay, self.total_loss = chain_step, R.missed_steps, total_loss
        if s.sampler == "popularity":
            self.popularity = H.popularity(torch.bincount(self.train_i, minlength=data.I), s.popularity_power)
        if self.compile != "off":
            B, last = s.train_batch_size, len(data.train_u) % s.train_batch_size or s.train_batch_size     # of most batches, of an epoch's last
            self.total_loss = total_loss if H.used(s) or M.own(s) else self.tried("loss", total_loss, self.example_loss, B, True, last)
            if s.model == "CCDRec" and s.cns and self.total_loss is not total_loss:    # the steps before the first pool have no curricular negatives
                for n in (B, B // 3 + 2, last):
                    x = self.example_loss(n)
                    self.total_loss(*x[:10], None, *x[11:]).backward()
            if M.diffuses(s) and s.estimator == "attention":
                ops.estimate = staticmethod(self.tried("estimator", M.estimate_pooled, self.example_estimator, int(1.8 * B), True, int(1.8 * last)))
                self.chain = self.tried("reverse chain", chain_step, self.example_chain, self.chain_block())
            if self.on_demand and self.tables:
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
        capture = (self.device.type == "cuda" and self.use_graphs != "off" and not self.on_demand and not H.used(s) and not s.use_mg
                   and not M.of_all_items(s) and s.estimator != "unet")
        rate = torch.tensor(s.learning_rate, device=self.device) if capture and latent else s.learning_rate     # a recorded step reads it where it is
        self.optimizer = torch.optim.Adam([self.p[n] for n in dense], lr=rate, weight_decay=s.weight_decay, capturable=capture, **self.fastest_adam())
        self.graph = GraphStep(self) if capture else None

    @torch.no_grad()
    def constants_of(self, m, product):
        """What MMGCN's first layer has that no parameter changes: x_1 and its mean over neighbours, of a mapped modality the users' rows of x_1."""
        users = F.normalize(self.p[f"{m}.preference"], dim=1, eps=1e-12)
        if f"{m}.mlp.weight" in self.p:
            return SimpleNamespace(users=users, x=None, mean=None)
        x = torch.cat([users, F.normalize(self.p[f"{m}_embedding.weight"], dim=1, eps=1e-12)])
        return SimpleNamespace(users=users, x=x, mean=product(self.full_graph[0], x))

    def fastest_adam(self):
        try:
            torch.optim.Adam([torch.zeros(1, device=self.device, requires_grad=True)], fused=True)
            return dict(fused=True)
        except RuntimeError as e:
            self.notes.append(f"no fused Adam ({e}); foreach instead")
            return dict(foreach=True)

    # ---- torch.compile by trial

    def tried(self, what, plain, example, n, backward=False, last=None):
        """The compiled function if it compiles and, in --compile auto, is faster on example(n); else the plain one, and a note. Other
        numbers of rows are tried too, `last` among them, so that no recompilation falls into an epoch. --compile on insists: what does not compile is an error."""
        def once(f, x):
            with torch.set_grad_enabled(backward):
                y = f(*x)
                if backward:
                    y.sum().backward()
            return y.detach()

        begin, x = time.perf_counter(), example(n)
        try:
            compiled = torch.compile(plain, dynamic=True)
            if not torch.allclose(once(plain, x), once(compiled, x), rtol=1e-3, atol=1e-4):
                raise RuntimeError("compiled and plain results differ")
            for rows in (n - 3, max(2, n // 3), last or n):
                once(compiled, example(rows))
            t_plain, t_compiled = self.best_seconds(lambda: once(plain, x)), self.best_seconds(lambda: once(compiled, x))
        except Exception as e:   # no compiler, an unsupported operation: any failure means the plain function
            why = f"{type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''}"
            if self.compile == "on":
                raise UserError(f"--compile on: the {what} does not compile ({why}); bench/pytorch/README.md says what that takes, --compile auto goes on "
                                "without") from None
            self.notes.append(f"{what}: not compiled ({why})")
            return plain
        use = self.compile == "on" or t_compiled < 0.97 * t_plain
        self.notes.append(f"{what}: {'compiled' if use else 'plain'} ({t_plain * 1e3:.2f} ms plain, {t_compiled * 1e3:.2f} ms compiled, "
                          f"tried in {time.perf_counter() - begin:.0f} s)")
        return compiled if use else plain

    def fastest_product(self):
        """Of the ways PyTorch has to multiply a CSR matrix, the fastest on the whole user-item graph."""
        if self.s.model == "BPR":
            return by_library
        A = self.full_graph[0] if isinstance(self.full_graph, tuple) else self.full_graph
        X = torch.randn(A.shape[1], self.s.embedding_size * (3 if self.s.model == "SLMRec" else 1), device=self.device)
        right, took = by_library(A, X, X), {}
        for name, f in PRODUCTS.items():
            try:
                if not torch.allclose(f(A, X, X), right, rtol=1e-4, atol=1e-5):
                    raise RuntimeError("another result")
                took[name] = self.best_seconds(lambda: f(A, X, X))
            except Exception as e:   # an operation that this device or version lacks
                self.notes.append(f"sparse product by {name}: not taken ({type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''})")
        best = min(took, key=took.get)
        self.notes.append(f"sparse products by {best} (" + ", ".join(f"{name} {t * 1e3:.2f} ms" for name, t in took.items()) + ")")
        return PRODUCTS[best]

    def best_seconds(self, f, times=7):
        best = math.inf
        for _ in range(times):
            begin = time.perf_counter()
            f()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begin)
        return best

    def loss(self, r, batch, diffusion):
        if H.used(self.s) or M.own(self.s):
            return super().loss(r, batch, diffusion)
        at = getattr(diffusion, "at", None)
        if at is None and r.projection:
            at = torch.searchsorted(diffusion.items, torch.cat([batch.positives[None], batch.negatives]))
        return self.total_loss(r.P, r.Q, r.users, r.items, r.e_0, r.e0_hat, r.projection, batch.users, batch.positives, batch.negatives.unbind(0),
                               batch.curricular, batch.frozen, at, diffusion.count if diffusion else None, self.s)

    def example_loss(self, n):
        s, U, I = self.s, self.data.U, self.data.I    # noqa: E741
        leaf = lambda *shape: (0.1 * torch.randn(*shape, device=self.device)).requires_grad_(True)   # noqa: E731
        drawn = lambda limit, *shape: torch.randint(0, limit, shape, device=self.device)   # noqa: E731
        users, positives, negatives = drawn(U, n), drawn(I, n), drawn(I, s.n_neg, n)
        P, Q = leaf(U, s.embedding_size), leaf(I, s.embedding_size)
        at = count = e_0 = e0_hat = None
        projection = {}
        if M.needs_projection(s):
            items, count = torch.unique(torch.cat([positives, negatives.flatten()]), return_counts=True)
            at = torch.searchsorted(items, torch.cat([positives[None], negatives]))
            projection = {m: leaf(len(items), s.embedding_size) for m in self.modalities}
            if s.model == "CCDRec" and s.dma or M.of_all_items(s):
                e_0, e0_hat = leaf(len(items), s.embedding_size), leaf(len(items), s.embedding_size)
        curricular = drawn(I, n) if s.model == "CCDRec" and s.cns else None
        h = (P, Q) if s.model == "BPR" else (leaf(U, s.embedding_size), leaf(I, s.embedding_size))      # as in a step: there the same tensors
        return P, Q, *h, e_0, e0_hat, projection, users, positives, tuple(x.clone() for x in negatives), curricular, None, at, count, s   # no views: see total_loss

    def example_estimator(self, n):
        d = self.s.embedding_size
        leaf = lambda *shape: torch.randn(*shape, device=self.device).requires_grad_(True)   # noqa: E731
        tau = M.time_table(self.s.timesteps, d, torch.float32, self.device)[torch.randint(0, self.s.timesteps, (n,), device=self.device)]
        return leaf(n, d), [leaf(n, d) for _ in self.modalities], tau, leaf(d, d), leaf(d, d), leaf(d, d)

    def example_chain(self, n):
        d, m = self.s.embedding_size, len(self.modalities)
        r = lambda *shape: torch.randn(*shape, device=self.device)   # noqa: E731
        return r(n, d), r(n, d), r(3), r(d, 3 * d), r(n, m, d), r(n, m, d), r(n, m, d), r(n, m, m), r(d), r(d), r(d), r(()), r(n, m), r(n, m)

    # ---- one epoch

    def projected_items(self, batch):
        return torch.unique(batch.positives)

    def draw_mask(self, n, index):
        distinct, row = torch.unique(index, return_inverse=True)
        return self.table_mask(len(distinct), row)

    def prune(self):
        if self.n_keep == len(self.weight):
            return
        keep = D.prune(self.race_weights(), self.n_keep, self.generator)
        N = self.data.U + self.data.I
        A = D.csr(*self.kept_graph(keep), N, N)
        if self.graph:
            self.graph.set_graph(A)    # the captured step reads fixed buffers
        else:
            self.graphs.user_item = A

    def draw_popular(self, users):
        return self.draw_negatives(users, 1, lambda n: torch.multinomial(self.popularity, n, True, generator=self.generator))[0]

    def draw_negatives(self, users, n, pick=None):
        """(n,E): uniform over training items (or by `pick`), drawn again while the user has it (a user with all of them keeps the 100th draw)."""
        shape = (n, len(users))
        u = users.expand(shape).reshape(-1)
        pick = pick or (lambda n: self.train_items[torch.randint(0, len(self.train_items), (n,), device=self.device, generator=self.generator)])
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

    def one_of_top(self, sim, k, r):
        """The r-th finite one in whatever order topk finds them: each is as likely, since r is drawn uniformly, and sorting them is saved."""
        top = torch.topk(sim, k, dim=1, sorted=False)
        at = (top.values > -math.inf).cumsum(1).le(r[:, None]).sum(1, keepdim=True).clamp_(max=k - 1)      # k: a row with none, not used
        return top.indices.gather(1, at).squeeze(1)

    def batches(self, stage):
        B = self.s.train_batch_size
        with self.clock("sample"):
            order = torch.randperm(len(self.train_u), device=self.device, generator=self.generator)
            users, positives = self.train_u[order], self.train_i[order]
            negatives = self.draw_negatives(users, self.s.n_neg)
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
                    batch.draw_again = lambda choose=choose: choose(self.pools[stage])
                    batch.curricular = batch.draw_again()
            yield batch, choose if stage == "own" else None

    def set_rate(self, rate):
        group = self.optimizer.param_groups[0]
        if torch.is_tensor(group["lr"]):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
        for x in self.by_rows.values() if self.on_demand else ():      # all rows are up to date at the end of an epoch
            x.lr = rate

    def keep_latent(self, S):
        if not isinstance(S, tuple):
            self.graphs.latent.keep(in_place=self.graph is not None)

    def run_batch(self, batch, choose):
        latent = self.graphs.latent
        recordable = choose is None and (latent is None or latent.built is not None)
        if self.graph and recordable and len(batch.users) == self.s.train_batch_size:
            with self.clock("step"):
                loss = self.graph.run(batch)
            if loss is not None:
                return loss
        return super().run_batch(batch, choose)

    def before(self, diffusion):
        if self.graph:
            self.graph.before_eager_step()
        if self.on_demand and self.tables:
            with self.clock("optimiser"):
                for x in self.by_rows.values():
                    if self.graphs.latent is not None and self.graphs.latent.built is None:
                        x.flush(self.steps - 1)        # S is made of all rows
                    elif diffusion:
                        x.catch_up(diffusion.items, self.steps - 1)

    def optimise(self, diffusion, factor):
        whole = self.whole_gradients(diffusion)
        if factor != 1:
            for g in [*whole.values(), *(x.grad for x in self.gathered.values()), *(x.grad for n, x in self.p.items() if n not in self.tables)]:
                if g is not None:
                    g *= factor
        rows = None if whole or not self.tables or diffusion is None else diffusion.items
        if self.on_demand:
            for n, x in self.by_rows.items():
                if whole:
                    x.step(torch.arange(len(x.x), device=self.device), whole[n], self.steps)
                elif rows is not None:
                    x.step(rows, self.gathered[n].grad, self.steps)
        elif self.tables:
            for n in self.tables:      # the dense gradient is zero but for these rows; last step's are cleared by rows, too
                g = self.p[n].grad
                if self.written == "all":
                    g.zero_()
                elif self.written is not None:
                    g.index_fill_(0, self.written, 0)
                if whole:
                    g.copy_(whole[n])
                elif rows is not None:
                    g.index_copy_(0, rows, self.gathered[n].grad)
            self.written = "all" if whole else rows
        self.gathered.clear()
        if self.graphs.latent is not None:
            self.graphs.latent.ready = None                        # the parameters move
            for x in self.optimizer.param_groups[0]["params"]:     # those of the graph without a gradient, too (baselines.md 8.6)
                if x.grad is None:
                    x.grad = torch.zeros_like(x)
        self.optimizer.step()
        recorded = self.graph and self.graph.captured     # its replays write these gradients: they must stay where they are
        for group in self.optimizer.param_groups:
            for x in group["params"]:
                if x.requires_grad and recorded:
                    x.grad.zero_()
                elif x.requires_grad:
                    x.grad = None

    def whole_gradients(self, diffusion):
        """Table name -> gradient (I,F) of all feature rows, after a step whose graph was made of them: what the batch's rows add is in it."""
        leaves = self.graphs.latent.leaves if self.graphs.latent is not None and self.tables else {}
        whole = {f"{m}_embedding.weight": x.grad for m, x in leaves.items() if x.grad is not None}
        for n, g in whole.items():
            if n in self.gathered:
                g.index_add_(0, diffusion.items, self.gathered[n].grad)
        if whole:
            self.graphs.latent.leaves = {}
        return whole

    def after_epoch(self):
        if self.on_demand:
            for x in self.by_rows.values():
                x.flush(self.steps)

    def chain_block(self):
        """Rows of a block of the reverse process: what a core's cache holds; a GPU takes all items at once."""
        return self.data.I if self.device.type == "cuda" else CHAIN_BLOCK

    @torch.no_grad()
    def reverse_process(self, start=None, noise=None):
        """The chain for blocks of items, each through all its steps; what the modalities and the steps contribute is computed once.
        start (I,d), noise(t) (I,d): given draws, for checks."""
        p, s, d, T = self.p, self.s, self.s.embedding_size, self.s.timesteps
        Q = p["item_id_embedding.weight"]
        if s.estimator == "unet":
            h = [self.ops.project(p, m, torch.arange(len(Q), device=self.device)).detach() for m in self.modalities]
            return M.reverse(p, h, s, self.noise(len(Q)) if start is None else start, noise or (lambda t: self.noise(len(Q))),
                             lambda e, t: M.answers(p, s, e, h, t, self.ops))
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
        block = self.chain_block()
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
            final, of = self.representations(), self.splits[split]
            return metrics.metrics(metrics.hits(metrics.rank(*final, of), of), of.count) if len(of.users) else {}

    @torch.no_grad()
    def representations(self):
        """Of the parameters as they are, once for all that ask: validation, test, RealHNS."""
        if getattr(self, "evaluated", None) != self.steps:
            if self.graphs.latent is not None:
                self.graphs.latent.built = None        # S is made anew; the next epoch's first batch has it
            graphs = SimpleNamespace(**{**vars(self.graphs), "user_item": getattr(self, "full_graph", None)})
            self.final = M.final_tables(self.p, graphs, self.s, self.pools and self.pools[3], self.ops)
            self.evaluated = self.steps
        return self.final

    HARD_BLOCK = 128

    def band_table(self, H_u, H_i, places, block=1024):
        """(U,N) candidates of RealHNS, a block of users' scores at a time."""
        out, occurs = [], torch.zeros(self.data.I, dtype=torch.bool, device=self.device)
        occurs[self.train_items] = True
        for b in range(0, self.data.U, block):
            score = (H_u[b:b + block] @ H_i.T).masked_fill_(~occurs, -math.inf)
            of = slice(self.start[b], self.start[min(b + block, self.data.U)])
            score[self.pair_u[of] - b, self.pair_i[of]] = -math.inf
            out.append(realhns.candidates(score, places))
        return torch.cat(out)


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

"""A recorded run (docs/run-format.md), taken apart and repeated with the baseline's own mathematics. parity.py says what is taken from the record and
what is compared; this computes and collects what is wrong.

Training MCDRec's U-Net multiplies any difference by a hundred and more a step (its group norms of two values are nearly sign functions), so a run of float32
is determined for a few steps only. Its records are therefore repeated several times, also with parameters a rounding off in every step (`twins`); where
those part from one another, as much is allowed to the record.
"""
import copy
import functools
import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import torch

import data as D
import dgd
import hard as H
import lattice
import mirror
import models as M
import safetensors_io as st
import slmrec
import unet
from mistakes import UserError
from replay_lattice import Lists, Unusable
from replay_masks import Masks
from replay_realhns import Band

PARTS = M.PARTS      # of records that do not name the parts of their losses
LOSS = 1e-4          # relative, of the whole loss and of each part; a part may also differ by LOSS_OF_ALL of the whole
LOSS_OF_ALL = 1e-6
NEIGHBOUR = 1e-6     # of a cosine similarity: neighbours that close to the last one may be either's
ROUNDING = 1e-5      # of the mass of an inner product, the sum of the absolute values of its terms: similarities and scores
MOVED = 1e-2         # of the learning rate: how far a parameter may end from ours ...
STRAYED = 1e-3       # ... but for this share: elements whose gradient was rounding at some step move by the learning rate in a direction it chose
STRAYED_AT_KINKS = 2e-2   # of MMGCN: a number within rounding of 0 on its way into a leaky ReLU takes the other slope, which every gradient before it feels
EDGE = 5e-5          # of the weight of an edge of MCDRec, times its tau: of a cosine
ASTRAY = 6.0         # standard errors between the mean place of an epoch's hard negatives and what their draws lead to expect
K = 20
TWINS, APART, ALLOWED = 2, 4e-7, 8.0     # their number, by how much of itself a parameter is off, and how many times what they differ by is allowed
FLIPPED = 0.05       # share of the edges and of the parameters that may be off all the same: a sign that flips in one program alone is an event, not a distance


@functools.lru_cache(maxsize=None)
def expected_place(n, N, m):
    """Mean and variance of how many of n items score higher than the one taken: one of the m best of N draws with replacement, each equally likely."""
    r = np.arange(1, n) / n                            # P(the j-th best draw has r items or more above it) = P(fewer than j draws are among these r)
    beyond = sum((m - i) / m * math.comb(N, i) * r ** i * (1 - r) ** (N - i) for i in range(m))
    mean = beyond.sum()
    return mean, ((2 * np.arange(1, n) - 1) * beyond).sum() - mean ** 2


class Ops(M.Ops):
    """Graphs are pairs of CSR matrices, one and its transpose."""
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, pair, x):
            ctx.pair = pair
            return pair[0] @ x

        @staticmethod
        def backward(ctx, g):
            return None, ctx.pair[1] @ g.contiguous()

    propagate = staticmethod(lambda A, ego, L: M.propagate(A, ego, L, Ops.Product.apply))
    layers = staticmethod(lambda A, ego, L: M.layers(A, ego, L, Ops.Product.apply))
    item_mm = staticmethod(Product.apply)


class Run:
    """The arrays and the metadata of a record, in the types of the replay."""

    def __init__(self, path):
        self.arrays, meta = st.load(path)
        if meta.get("format") != "ccdrec-run" or meta.get("version") != "1":
            raise UserError(f"{path}: format {meta.get('format')!r}, version {meta.get('version')!r}; expected a record of `ccdrec train --record`")
        missing = [k for k in ("settings", "modalities", "epochs", "data", "program") if k not in meta]
        if missing:
            raise UserError(f"{path}: its metadata lack {missing[0]}; expected a record of `ccdrec train --record`")
        self.settings, self.modalities, self.epochs = (json.loads(meta[k]) for k in ("settings", "modalities", "epochs"))
        self.about = {k: meta[k] for k in ("data", "program")}
        self.parts = json.loads(meta["losses"]) if "losses" in meta else list(PARTS)
        unknown = [n for n in self.parts if n not in {*PARTS, "bpr_hard", *itertools.chain(*(x.LOSSES for x in M.OWN.values()))}]
        if unknown:
            raise UserError(f"{path}: its losses have the part {unknown[0]}, which the baseline has not")

    def baseline_settings(self):
        s = self.settings
        for key, plain in (("precision", "fp32"), ("knn_center", False), ("mm_weights", [])):
            if s.get(key, plain) != plain:
                raise UserError(f"{key} is {s[key]!r}: the baseline has {plain!r} only")
        return M.settings(**{k: v for k, v in s.items() if k in M.DEFAULTS})

    def of(self, epoch, name):
        return self.arrays.get(f"epoch.{epoch}.{name}")

    def drawn(self, epoch, name, at):
        """The part of an array that a pass of a step drew."""
        x = self.of(epoch, at.prefix + name)
        if x is None:
            raise Unusable(f"epoch {epoch}: the record has no {at.prefix + name}")
        return x[at.step] if name == "candidates" else x[at.items] if name in ("t", "noise", "mask.unet") else x[at.rows] if name.startswith("mask.") else x[..., at.rows]


class Replay:
    def __init__(self, run, data, dtype):
        self.run, self.data, self.dtype, self.s = run, data, dtype, run.baseline_settings()
        self.wrong = []                                # sentences
        self.seen = SimpleNamespace(steps=0, loss=0.0, loss_at="", part=0.0, part_at="", negatives=0, flips=[], gap=0.0, users=0, near=[],
                                    tie=0.0, recall=[], other_rows=[], parameters=0, strayed=0, farthest=0.0, mirrored=0, hard=0, astray=0.0, astray_at="",
                                    lists=0, list_gap=0.0, edges=0, edge_gap=0.0, twins=0.0, masks=0, mask_astray=0.0, mask_astray_at="")
        s, U, I = self.s, data.U, data.I   # noqa: E741
        a = run.arrays
        self.p = {n[8:]: torch.tensor(x).to(dtype) for n, x in a.items() if n.startswith("initial.")}
        absent = [m for m in run.modalities if m not in data.features]
        if absent:
            raise UserError(f"the record has the modality {absent[0]}, the data no {absent[0]}_feat.npy: not the folder of this run")
        for m in run.modalities:
            self.p[f"{m}_embedding.weight"] = torch.tensor(data.features[m]).to(dtype)
        self.moments = {n: (torch.zeros_like(x), torch.zeros_like(x)) for n, x in self.p.items()}
        self.t, self.pools, self.twins, self.noted, self.is_twin = 0, None, [], {}, False
        expected = {"id_embedding": U + I} if s.model == "MMGCN" else {"user_embedding.weight": U, "item_id_embedding.weight": I}
        missing = [n for n in (*expected, *(f"{m}.preference" for m in run.modalities if s.model == "MMGCN")) if n not in self.p]
        if missing:
            raise UserError(f"the record has no initial.{missing[0]}, expected every parameter and constant table of {s.model}")
        shapes = {n: tuple(self.p[n].shape) for n in expected}
        if shapes != {n: (rows, s.embedding_size) for n, rows in expected.items()}:
            raise UserError(f"the record has tables {tuple(shapes.values())}, the data {U} users and {I} items: not the folder of this run")
        self.full = self.item = self.lists = self.latent = self.masks = None
        self.unit = slmrec.unit_features(self.p, run.modalities) if s.model == "SLMRec" else None
        if s.model != "BPR":
            self.full = self.sparse(*{"LATTICE": D.row_graph, "MMGCN": D.mean_graph}.get(M.backbone(s), D.user_item_graph)(data.pair_u, data.pair_i, U, I), U + I)
        if M.has_features(s) and M.backbone(s) != "LATTICE":
            self.item = self.sparse(*self.item_graph(), I)
        self.train_rows = np.sort(data.train_u * np.int64(I) + data.train_i)
        self.occurs = np.zeros(I, bool)
        self.occurs[data.train_items] = True
        count = np.bincount(data.train_i, minlength=I)
        self.log_count = np.log(np.maximum(count, 1))
        self.popularity = H.popularity(torch.tensor(count), s.popularity_power).numpy()

    def sparse(self, index, value, n):
        return D.csr(index, value.to(self.dtype), n, n), D.csr(*D.transpose(index, value.to(self.dtype)), n, n)

    def item_graph(self):
        """The recorded item graph, checked against our own from the features: a row may differ only by neighbours that tie to within rounding."""
        s, names, I = self.s, list(self.data.features), self.data.I   # noqa: E741
        x = [torch.nn.functional.normalize(torch.from_numpy(self.data.features[m]).double(), dim=1, eps=1e-12) for m in names]
        share = [w / (s.knn_k + D.EPS) for w in D.modality_weights(names, s.mm_image_weight)]
        ours = D.item_graph(dict(zip(names, x)), s.knn_k, s.mm_image_weight)
        index, value = (torch.tensor(self.run.arrays[f"graph.item_item.{n}"]) for n in ("index", "value"))
        index = index.long()
        rows = [{} for _ in range(I)]
        for (i, j), v in zip(index.T.tolist(), value.tolist()):
            rows[i][j] = v
        for (i, j), v in zip(ours[0].T.tolist(), ours[1].tolist()):     # what is left of a row that is the same: nothing
            if abs(rows[i].get(j, 0) - v) <= 1e-6 * v:
                del rows[i][j]
            else:
                rows[i][-1 - j] = v
        subsets = [c for n in range(len(x) + 1) for c in itertools.combinations(range(len(x)), n)]
        for i in (i for i in range(I) if rows[i]):
            self.seen.other_rows.append(i)
            sim = [y @ y[i] for y in x]
            last = [torch.topk(y, s.knn_k).values[-1].item() for y in sim]

            def explained(j, v):
                """Whether j can be a neighbour in just those modalities whose shares add up to v."""
                return any(abs(sum(share[m] for m in c) - v) <= 1e-6 * max(v, share[0]) and
                           all((1 if m in c else -1) * (sim[m][j].item() - last[m]) >= -NEIGHBOUR for m in range(len(x))) for c in subsets)

            if not all(explained(*(j, v) if j >= 0 else (-1 - j, rows[i].get(-1 - j, 0))) for j, v in rows[i].items()):
                self.complain(f"item graph, row {i}: neighbours {sorted(j for j in rows[i] if j >= 0)}, expected {sorted(-1 - j for j in rows[i] if j < 0)}")
        return index, value

    def complain(self, text):
        self.wrong.append(text)

    def twin(self, n):
        """This replay with other roundings, its complaints nobody's."""
        other = copy.copy(self)
        other.rounding = torch.Generator().manual_seed(n)
        other.wrong, other.seen, other.noted, other.is_twin = [], copy.deepcopy(self.seen), {}, True
        other.p, other.moments = dict(self.p), dict(self.moments)
        return other

    def rounded(self):
        """The parameters; of a twin each time off by a rounding, for what it computes with them."""
        if not self.is_twin:
            return self.p
        return {n: x * (1 + APART * torch.randn(x.shape, generator=self.rounding, dtype=x.dtype)) for n, x in self.p.items()}

    def allowed(self, key, x):
        """What the record may differ by from x because of the twins, who came to `key` before; without them 0."""
        self.noted[key] = x
        return ALLOWED * sum(abs(y.noted[key] - x) for y in self.twins) if self.twins else 0 * x

    def in_training(self, users, items):
        key = users * np.int64(self.data.I) + items
        at = np.searchsorted(self.data.key, key).clip(max=len(self.data.key) - 1)
        return self.data.key[at] == key

    # ------------------------------------------------------------------------------------------------------------ an epoch

    def epoch(self, e):
        s, run = self.s, self.run
        for other in self.twins:
            other.epoch(e)
        self.noted["pools"] = self.pools
        pool = run.epochs[e].get("negatives", "none")
        if s.model == "CCDRec" and s.cns and pool != self.planned_pool(e):
            self.complain(f"epoch {e}: negatives from {pool}, the curriculum has {self.planned_pool(e)}")
        graphs = self.graphs(self.pruned(e))
        self.rate = lattice.learning_rate(s, e)
        if self.lists:
            self.latent = self.lists.at(e, self.p)     # the first step makes a constant of it
        if s.sampler == "realhns":
            self.band = Band(run, self.data, s, e, self.complain, ROUNDING)
            if self.band.share:
                self.band.begin(*self.final(e - 1), self.admissible)
        users, positives = (run.of(e, n).astype(np.int64) for n in ("users", "positives"))
        negatives = run.of(e, "negatives").astype(np.int64) if s.n_neg else np.zeros((0, len(users)), np.int64)
        if not np.array_equal(np.sort(users * np.int64(self.data.I) + positives), self.train_rows):
            self.complain(f"epoch {e}: its rows are not the training rows, each once")
        owned = self.in_training(np.broadcast_to(users, negatives.shape), negatives)
        has_all = np.diff(self.data.start)[users] == len(self.data.train_items)
        if (owned & ~has_all).any() or not self.occurs[negatives].all():
            self.complain(f"epoch {e}: random negatives that the user has, or that nobody has")
        B = min(s.train_batch_size, len(users))
        self.places = {}                               # (sampler's table, pass) -> numbers of the epoch's hard negatives
        for k, first in enumerate(range(0, len(users), B)):
            rows = slice(first, min(first + B, len(users)))
            for n, factor in enumerate(mirror.passes(k, s)):
                self.step(e, k, n, factor, rows, self.place(e, k, n, rows, B), pool, graphs, users, positives, negatives)
        self.check_places(e)
        if self.masks:
            self.masks.check(e)
        if s.use_mg:
            self.check_drawn_again(e, B)
        if M.diffuses(s):
            everything = torch.arange(self.data.I)
            p = self.rounded()
            with torch.no_grad():
                projections = [M.Ops.project(p, m, everything) for m in run.modalities]
            noise = torch.tensor(run.of(e, "reverse.steps")).to(self.dtype)
            self.pools = M.reverse(p, projections, s, torch.tensor(run.of(e, "reverse.start")).to(self.dtype), lambda t: noise[t - 2])
        if run.epochs[e]["evaluated"]:
            self.evaluate(e)

    def graphs(self, user_item, latent=None):
        return SimpleNamespace(user_item=user_item, item_item=self.item, latent=latent, modalities=self.run.modalities, features=self.unit)

    def planned_pool(self, e):
        s = self.s
        if e == 0 or s.omega == 0:
            return "random"
        if e > s.tau_end or not s.ndi:
            return "model"
        first = s.first_stage or s.dtau
        return ("3T/4", "T/2", "T/4", "0")[0 if e < first else min(3, 1 + (e - first) // s.dtau)]

    def pruned(self, e):
        """The training graph of the epoch, from its edges: distinct training pairs, as many as rho leaves."""
        data, edges = self.data, self.run.of(e, "edges")
        rho = self.s.dropout if M.prunes(self.s) else 0
        if rho <= 0:
            return self.full
        u, i = edges.astype(np.int64)
        want = D.kept_edges(len(data.pair_u), rho)
        if len(u) != want:
            self.complain(f"epoch {e}: {len(u)} edges kept, expected {want}")
        foreign = int((~self.in_training(u, i)).sum()) + len(u) - len(np.unique(u * np.int64(data.I) + i))
        if foreign:
            self.complain(f"epoch {e}: {foreign} kept edges are no training pair, or kept twice")
        if M.backbone(self.s) != "MCDRec" or self.s.dgd == "off":
            return self.sparse(*D.user_item_graph(u, i, data.U, data.I), data.U + data.I)
        t, direct = torch.tensor, self.s.dgd == "direct"
        weight = self.edge_weights(e)[np.searchsorted(data.key, u * np.int64(data.I) + i).clip(max=len(data.key) - 1)]
        return self.sparse(*dgd.graph(weight, t(u), t(i), data.U, data.I, direct), data.U + data.I)

    def edge_weights(self, e):
        """(E) MCDRec's weights of all training pairs, by our own parameters and reverse process; those of the record are held against them."""
        data, s = self.data, self.s
        X = self.pools[3] if self.pools else self.p["item_id_embedding.weight"]
        ours = dgd.edge_weights(self.p["user_embedding.weight"], X, torch.tensor(data.pair_u), torch.tensor(data.pair_i), s.dgd_tau)
        theirs = self.run.of(e, "edge_weights")
        if theirs is None or theirs.shape != (len(ours),):
            raise Unusable(f"epoch {e}: the record has no edge_weights of the {len(ours)} training pairs")
        off = (ours - torch.tensor(theirs)).abs()
        self.seen.edges += len(ours)
        self.seen.edge_gap = max(self.seen.edge_gap, off.max().item())
        off = off - self.allowed(("edges", e), ours)
        beyond = ~(off <= EDGE * s.dgd_tau + 1e-7)
        # an item that has a D near 0 (unet.py) in the reverse process takes its edges along
        if beyond.sum() > (FLIPPED * len(off) if self.twins else 0):
            worst = int(off.argmax())
            self.complain(f"epoch {e}: the weight of edge {worst} is {theirs[worst]:.9g}, expected {ours[worst].item():.9g}")
        return ours

    # -------------------------------------------------------------------------------------------------------------- a step

    def place(self, e, k, n, rows, B):
        """Where the draws of pass n of step k are: those of a second pass stand in arrays of their own, in which only mirror batches are."""
        first_item = self.run.of(e, "first_item")
        of_step = (lambda j: 0) if first_item is None else lambda j: int(first_item[j + 1] - first_item[j])   # noqa: E731
        if n == 0:
            before = 0 if first_item is None else int(first_item[k])
            return SimpleNamespace(prefix="", step=k, rows=rows, items=slice(before, before + of_step(k)))
        j, beta = k // self.s.beta, self.s.beta
        before = sum(of_step(beta * x) for x in range(j))
        return SimpleNamespace(prefix="pass1.", step=j, rows=slice(j * B, j * B + rows.stop - rows.start), items=slice(before, before + of_step(k)))

    def check_drawn_again(self, e, B):
        """Nothing that a second pass draws is what the first one drew."""
        first = [self.place(e, k, 0, slice(k * B, (k + 1) * B), B) for k in range(0, len(self.run.of(e, "losses")), self.s.beta)]
        for name, along in (("hard", 1), ("alpha", 1), ("noise", 0), ("ranks", 0), ("mask.unet", 0), ("mask.users", 0), ("mask.items", 0)):
            again = self.run.of(e, "pass1." + name)
            if again is not None and again.size > 20 and np.array_equal(again, np.concatenate([self.run.drawn(e, name, at) for at in first], along)):
                self.complain(f"epoch {e}: the second passes have the {name} of the first ones")

    def step(self, e, k, n, factor, rows, at, pool, graphs, users, positives, negatives):
        s, run = self.s, self.run
        t = lambda x: torch.as_tensor(np.ascontiguousarray(x))   # noqa: E731
        batch = SimpleNamespace(users=t(users[rows]), positives=t(positives[rows]), negatives=t(negatives[:, rows]), curricular=None, frozen=None)
        if M.has_masks(s):
            diffusion = SimpleNamespace(items=torch.unique(batch.positives), masks=self.masks and self.masks.of_pass(e, k, n, at, batch))
        else:
            diffusion = self.diffusion(e, k, batch, at)
        p = {n: x.detach().requires_grad_(n in M.trained(self.p, s)) for n, x in self.rounded().items()}
        graphs.latent = self.latent
        r = M.represent(p, graphs, diffusion, run.modalities, s, Ops)
        if r.latent is not None:
            self.latent = lattice.as_constant(r.latent, self.latent)
        if run.of(e, "curricular") is not None:
            chosen = t(run.drawn(e, "curricular", at).astype(np.int64))
            if s.cns:
                table = r.items.detach() if pool == "model" else self.pools[("3T/4", "T/2", "T/4", "0").index(pool)]
                self.check_negatives(e, k, at, batch, chosen, table, pool)
            elif self.in_training(users[rows], chosen.numpy()).any():
                self.complain(f"epoch {e}, step {k}: negatives of NDI that their user has")
            if s.ndi and not s.cns and s.ndi_negative == "pool":
                batch.frozen = self.pools[3][chosen]
            else:
                batch.curricular = chosen
        if H.used(s):
            batch.hard = self.hard(e, k, n, at, batch, r)
        out = M.losses(r, batch, diffusion, s)
        if n == 0:                                     # the loss of a second pass is not recorded
            self.compare_losses(e, k, {n: out[f"loss.{n}"].item() for n in run.parts}, out["loss.total"].item())
        names = [n for n in p if p[n].requires_grad]
        grads = torch.autograd.grad(out["loss.total"], [p[n] for n in names], allow_unused=True)
        self.t += 1
        for x, g in zip(names, grads):
            g = torch.zeros_like(p[x]) if g is None else factor * g
            self.p[x], *self.moments[x] = M.adam(self.p[x], g, *self.moments[x], self.t, self.rate, weight_decay=s.weight_decay)
        self.seen.steps += 1
        self.seen.mirrored += n

    def diffusion(self, e, k, batch, at):
        s = self.s
        if not M.needs_projection(s):
            return None
        items, count = torch.unique(torch.cat([batch.positives, batch.negatives.flatten()]), return_counts=True)
        if M.of_all_items(s):
            items, count = torch.arange(self.data.I), torch.ones(self.data.I, dtype=torch.int64)
        a, b = self.run.of(e, "first_item")[k:k + 2]
        if not np.array_equal(items.numpy(), self.run.of(e, "items")[a:b]):     # a second pass has the items of the first
            raise Unusable(f"epoch {e}, step {k}: the items are not {'all there are' if M.of_all_items(s) else 'the distinct ones of the batch'}")
        d = SimpleNamespace(items=items, count=count, t=None, noise=None, mask=None)
        if M.diffuses(s):
            steps = self.run.drawn(e, "t", at).astype(np.int64)
            half = len(steps) // 2 + 1
            if s.mirrored_timesteps and not np.array_equal(steps[half:], s.timesteps - 1 - steps[:len(steps) - half]):
                self.complain(f"epoch {e}, step {k}: the second half of the diffusion steps does not mirror the first")
            d.t, d.noise = torch.tensor(steps), torch.tensor(self.run.drawn(e, "noise", at)).to(self.dtype)
            if s.estimator == "unet" and s.unet_dropout > 0:
                d.mask = self.mask(e, k, self.run.drawn(e, "mask.unet", at))
        return d

    def mask(self, e, k, words):
        """What the U-Net's dropout keeps, (n,4272) bool: as many as its rate leaves, of every element and over the items of a step."""
        if words.shape[1:] != (-(-unet.MASK // unet.WORD),) or words.min() < 0 or words.max() >= 1 << unet.WORD:
            raise Unusable(f"epoch {e}, step {k}: masks of shape {words.shape} and words up to {words.max(initial=0)}, expected {-(-unet.MASK // unet.WORD)} words of "
                           f"{unet.WORD} bits an item")
        kept, rate = unet.unpacked(torch.tensor(words)), self.s.unet_dropout
        of_all, of_element = kept.double().mean().item(), kept.double().mean(0)
        for off, n in ((abs(of_all - (1 - rate)), kept.numel()), ((of_element - (1 - rate)).abs().max().item(), len(kept))):
            error = math.sqrt(rate * (1 - rate) / n)
            # a mean of few is no normal one: the bound of Bernstein for 4272 elements at a chance of 1e-9 each
            if not off <= max(ASTRAY * error, math.sqrt(42 * rate * (1 - rate) / n) + 14 / n):
                self.complain(f"epoch {e}, step {k}: masks keep {of_all:.4f} of the values, an element by as much as {off:.3g} more or less than {1 - rate:g}")
        return kept

    def compare_losses(self, e, k, ours, total):
        """ours: the parts that the record has; total: of all parts, so that a part which the record lacks shows."""
        theirs = self.run.of(e, "losses")[k]
        whole = abs(total)
        *of_parts, of_total = self.allowed(("losses", e, k), np.array([*ours.values(), total]))
        self.seen.twins = max(self.seen.twins, of_total / whole)
        off = max(abs(total - theirs.sum()) - of_total, 0) / whole
        if not off <= self.seen.loss:
            self.seen.loss, self.seen.loss_at = off, f"epoch {e}, step {k}"
        if not off <= LOSS:
            self.complain(f"epoch {e}, step {k}: loss {theirs.sum():.9g}, expected {total:.9g}")
        for (name, x), y, more in zip(ours.items(), theirs, of_parts):
            gap = max(abs(x - y) - more, 0)
            if x and not gap / abs(x) <= self.seen.part:
                self.seen.part, self.seen.part_at = gap / abs(x), f"{name}, epoch {e}, step {k}"
            if not gap <= LOSS * abs(x) + LOSS_OF_ALL * whole:
                self.complain(f"epoch {e}, step {k}: {name} {y:.9g}, expected {x:.9g}")

    def hard(self, e, k, n, at, batch, r):
        """The recorded hard negatives of a pass: items that occur in training and that the user lacks. Their candidates are not recorded; where they stand in
        the user's ranking (popularity: how often they occur) is noted, for the epoch's mean."""
        s, users = self.s, batch.users.numpy()
        items = self.run.drawn(e, "hard", at).astype(np.int64)
        alpha = torch.tensor(self.run.drawn(e, "alpha", at)).to(self.dtype) if s.sampler == "mixgcf" else None
        tables = r.layers if s.sampler == "mixgcf" else [r.items]
        if items.shape != (len(tables), len(users)) or items.min() < 0 or items.max() >= self.data.I:
            raise Unusable(f"epoch {e}, step {k}: hard negatives of shape {items.shape} up to {items.max(initial=0)}, expected {(len(tables), len(users))} items")
        if alpha is not None and not (alpha.shape == items.shape and 0 <= alpha.min() and alpha.max() < 1):
            raise Unusable(f"epoch {e}, step {k}: mixing coefficients of shape {tuple(alpha.shape)} or outside [0, 1), expected {items.shape}")
        owned = self.in_training(np.broadcast_to(users, items.shape), items)
        has_all = np.diff(self.data.start)[users] == len(self.data.train_items)
        if (owned & ~has_all).any() or not self.occurs[items].all():
            self.complain(f"epoch {e}, step {k}{', second pass' if n else ''}: hard negatives that the user has, or that nobody has")
        distinct, row = np.unique(users, return_inverse=True)
        allowed = self.admissible(distinct)
        if s.sampler == "realhns" and self.band.share:
            self.band_places(n, batch, r, items[0], allowed.sum(1)[row], ~has_all & ~owned[0])
            return H.given(torch.tensor(items))
        for j, (table, chosen) in enumerate(zip(tables, items)):
            if s.sampler == "popularity":
                value, (mean, variance) = self.log_count[chosen], (x[row] for x in self.of_popularity(allowed))
            else:
                score = np.where(allowed, (r.users.detach()[torch.tensor(distinct)] @ table.detach().T).double().numpy(), -np.inf)[row]
                value = (score > score[np.arange(len(chosen)), chosen][:, None]).sum(1)
                N = 1 if s.sampler == "realhns" else s.n_candidates                # before its first hard negatives they are uniform
                mean, variance = np.array([expected_place(int(x), N, s.top_m if s.sampler == "dns" else 1) for x in allowed.sum(1)])[row].T
            live = ~has_all & ~owned[j]
            self.places.setdefault((j, n), []).append(np.array([(value - mean)[live].sum(), variance[live].sum()]))
            self.seen.hard += int(live.sum())
        return H.given(torch.tensor(items), alpha)

    def band_places(self, n, batch, r, items, n_allowed, live):
        """What RealHNS makes of a pass, for the epoch's means."""
        for name, (value, mean, variance) in self.band.places(r, batch, items, n_allowed).items():
            self.places.setdefault((name, n), []).append(np.array([(value - mean)[live].sum(), variance[live].sum()]))
        self.seen.hard += int(live.sum())

    def admissible(self, users):
        """(n,I) bool: occurs in training, and the user lacks it."""
        out = np.broadcast_to(self.occurs, (len(users), self.data.I)).copy()
        for b, u in enumerate(users):
            out[b, self.data.items_of(u)] = False
        return out

    def of_popularity(self, allowed):
        """Mean and variance of log f_j for a draw by popularity among a user's items."""
        share = self.popularity * allowed
        share /= np.maximum(share.sum(1, keepdims=True), 1e-300)
        mean = share @ self.log_count
        return mean, share @ self.log_count ** 2 - mean ** 2

    def check_places(self, e):
        for (table, n), sums in self.places.items():
            off, variance = np.sum(sums, 0)
            z = abs(off) / math.sqrt(max(variance, 1e-300))
            where = f"epoch {e}" + (f", layer {table}" if self.s.sampler == "mixgcf" else f", {table}" if self.s.sampler == "realhns" else "") + (", second passes" if n else "")
            if not z <= self.seen.astray:
                self.seen.astray, self.seen.astray_at = z, where
            if not z <= ASTRAY:
                self.complain(f"{where}: the hard negatives stand {z:.3g} standard errors from where {self.s.sampler} would choose them")

    def of_twins(self, pool, positives, candidates):
        """(B,C): what similarities in a pool may differ by because of the twins; their pools of the time."""
        def similarities(pools):
            table = pools[("3T/4", "T/2", "T/4", "0").index(pool)]
            x, y = table[positives], table[torch.tensor(candidates)]
            return (x @ (torch.nn.functional.normalize(y, dim=1, eps=1e-12) if self.s.cns_cosine else y).T).double().numpy()

        ours = similarities(self.pools)
        return ALLOWED * sum(abs(similarities(y.noted["pools"]) - ours) for y in self.twins)

    def check_negatives(self, e, k, at, batch, chosen, table, pool):
        """Each chosen item: a candidate, not the user's own, as similar as the one at the drawn rank."""
        s, data = self.s, self.data
        candidates = self.run.drawn(e, "candidates", at).astype(np.int64)
        rank = self.run.drawn(e, "ranks", at)
        C = len(candidates)
        if C != max(1, math.floor(s.candidate_ratio * data.I)) or (np.diff(candidates) < 0).any():
            self.complain(f"epoch {e}, step {k}: candidates of the wrong number or order")
        users, row = batch.users.numpy(), np.arange(len(rank))
        seen = self.in_training(np.repeat(users, C), np.tile(candidates, len(users))).reshape(len(users), C)
        x, y = table[batch.positives], table[torch.tensor(candidates)]
        sim, mass = x @ y.T, x.abs() @ y.abs().T
        if s.cns_cosine:                                # the positive's own norm changes no order
            norm = y.norm(dim=1).clamp(min=1e-12)
            sim, mass = sim / norm, mass / norm
        sim, mass = sim.double().numpy(), mass.double().numpy()
        more = self.of_twins(pool, batch.positives, candidates) if self.twins and pool != "model" else np.zeros_like(sim)
        allowed = np.where(seen, -np.inf, sim)
        order = np.argsort(-allowed, axis=1, kind="stable")
        admissible = (~seen).sum(1)
        k_top = max(1, math.floor(s.kappa * C))
        chosen = chosen.numpy()
        none = admissible == 0
        if not np.array_equal(rank == -1, none) or (rank >= np.minimum(k_top, np.maximum(admissible, 1))).any():
            self.complain(f"epoch {e}, step {k}: drawn ranks out of range")
        if (chosen[none] != batch.negatives[0].numpy()[none]).any():
            self.complain(f"epoch {e}, step {k}: no candidate is admissible, and not the random negative stands")
        ours = order[row, rank.clip(min=0)]             # our own choice
        found = np.searchsorted(candidates, chosen).clip(max=C - 1)
        legal = none | ((candidates[found] == chosen) & ~seen[row, found])
        for b in np.flatnonzero(~legal)[:3]:
            self.complain(f"epoch {e}, step {k}, row {b}: item {chosen[b]} is no admissible candidate of user {users[b]}")
        live = legal & ~none
        gap = np.maximum(np.abs(sim[row, found] - sim[row, ours]) - more[row, found] - more[row, ours], 0)
        gap = gap / np.maximum(mass[row, found], mass[row, ours])
        for b in np.flatnonzero(live & (candidates[ours] != chosen)):
            self.seen.flips.append(dict(epoch=e, step=k, row=int(b), user=int(users[b]), chosen=int(chosen[b]), ours=int(candidates[ours[b]]),
                                        gap=float(gap[b])))
            if not gap[b] <= ROUNDING:
                self.complain(f"epoch {e}, step {k}, row {b}: item {chosen[b]} is not at the drawn rank {rank[b]}, item {candidates[ours[b]]} is; their "
                              f"similarities differ by {gap[b]:.2g} of their mass")
        self.seen.negatives += int(live.sum())
        self.seen.gap = max(self.seen.gap, float(gap[live].max(initial=0)))

    # ---------------------------------------------------------------------------------------------------------- evaluation

    def final(self, e):
        """Representations of evaluation after epoch e, -1: before the first one. Of LATTICE with the lists of the epoch that follows."""
        latent = self.lists.at(e + 1, self.p) if self.lists else None
        graphs = self.graphs(self.full, latent)
        return M.final_tables(self.p, graphs, self.s, self.pools and self.pools[3], Ops)

    def evaluate(self, e):
        """Recall@20 of every user of both splits, from our own scores and from the recorded lists."""
        run, data = self.run, self.data
        H_u, H_i = self.noted["tables", e] = self.final(e)
        if self.is_twin:
            return
        users, theirs = run.of(e, "list.users").astype(np.int64), run.of(e, "list.items").astype(np.int64)
        if not np.array_equal(users, np.unique(np.concatenate([data.held["valid"][0], data.held["test"][0]]))):
            self.complain(f"epoch {e}: the lists are not those of the users with held-out items")
        near = {}
        ours = np.empty((len(users), K), np.int64)
        for b, u in enumerate(users):
            score = H_i @ H_u[u]
            more = ALLOWED * sum((x[1] @ x[0][u] - score).abs() for x in (y.noted["tables", e] for y in self.twins)) if self.twins else torch.zeros_like(score)
            score[torch.tensor(data.items_of(u))] = -math.inf
            ours[b] = torch.topk(score, K).indices.numpy()
            odd = np.setxor1d(ours[b], theirs[b])
            if not len(odd):
                continue
            # What is on one list alone must score as the last place does.
            last = ours[b, -1]
            mass = H_i[torch.tensor(np.append(odd, last))].abs() @ H_u[u].abs()
            tie = float((((score[torch.tensor(odd)] - score[last]).abs() - more[torch.tensor(odd)] - more[last]).clamp(min=0) / torch.maximum(mass[:-1], mass[-1])).max()) if theirs[b].min() >= 0 else math.inf
            near[int(u)] = tie
            self.seen.tie = max(self.seen.tie, tie)
            if not tie <= ROUNDING:
                self.complain(f"epoch {e}, user {u}: another list of {K}, by items whose scores differ by {tie:.2g} of their mass")
        place = {int(u): b for b, u in enumerate(users)}
        for split in ("valid", "test"):
            held = {}
            for u, i in zip(*data.held[split]):
                held.setdefault(int(u), set()).add(int(i))
            recall = [np.array([len(w.intersection(x[place[u]].tolist())) / len(w) for u, w in held.items()]) for x in (ours, theirs)]
            for u, x, y in zip(held, *recall):
                if x != y and u not in near:
                    self.complain(f"epoch {e}, {split}, user {u}: Recall@{K} {y}, expected {x}")
            differ = [u for u, x, y in zip(held, *recall) if x != y]
            stated = run.epochs[e][split].get(f"recall@{K}")
            if stated is not None and not abs(stated - recall[1].mean()) <= 1e-12:
                self.complain(f"epoch {e}, {split}: Recall@{K} is stated as {stated}, its lists have {recall[1].mean()}")
            self.seen.recall.append(dict(epoch=e, split=split, ours=float(recall[0].mean()), recorded=float(recall[1].mean()), differ=differ))
            self.seen.users += len(held)
        self.seen.near += [dict(epoch=e, user=u, gap=x) for u, x in near.items()]

    def compare_parameters(self):
        far, total, worst = 0, 0, 0.0
        for n, x in self.p.items():
            y = self.run.arrays.get(f"final.{n}")
            if y is None or n in unet.rounding():
                continue
            off = (x.double().numpy() - y.astype(np.float64).reshape(x.shape)) / self.s.learning_rate
            more = self.allowed(n, x).double().numpy() / self.s.learning_rate
            off = np.maximum(np.abs(off) - 1e-6 * np.abs(y).reshape(x.shape) / self.s.learning_rate - more, 0)
            far, total, worst = far + int((~(off <= MOVED)).sum()), total + off.size, max(worst, float(off.max()))
        self.seen.parameters, self.seen.strayed, self.seen.farthest = total, far, worst
        limit = STRAYED_AT_KINKS if self.s.model == "MMGCN" else FLIPPED if self.twins else STRAYED
        if not far <= limit * total:
            self.complain(f"{far} of {total} parameters end more than {MOVED:g} of the learning rate from ours, at most {limit:.1%} may")

    def all(self):
        try:
            if M.backbone(self.s) == "LATTICE":
                self.lists = Lists(self.run, self.data, self.s, self.dtype, self.complain, self.seen)
            if M.has_masks(self.s) and self.s.dropout > 0:         # else the record has none
                self.masks = Masks(self.run, self.data, self.s, self.complain, self.seen, ASTRAY)
            if M.diffuses(self.s) and self.s.estimator == "unet":
                self.twins = [self.twin(n) for n in range(1, 1 + TWINS)]
            for e in range(len(self.run.epochs)):
                self.epoch(e)
            for other in self.twins:
                other.compare_parameters()
            self.compare_parameters()
        except Unusable as end:
            self.complain(str(end))
        return self

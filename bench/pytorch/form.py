"""What the forms of the baseline share: phases and their clock, draws, the order of a step and of an epoch."""
import math
import time
import warnings
from collections import defaultdict
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

import data as D
import dgd
import hard as H
import lattice
import mirror
import models as M
import realhns
import slmrec
import unet
from mistakes import UserError

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



class Form:
    def __init__(self, data, s, device="cpu", seed=999, compile="auto", graphs="auto"):
        self.data, self.s, self.device = data, s, torch.device(device)
        self.seed, self.compile, self.use_graphs = seed, compile, graphs
        self.clock, self.notes, self.steps, self.j = Clock(self.device), [], 0, 0     # j: number of the batch in its epoch
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.modalities = list(data.features) if M.reads_features(s) else []
        if M.reads_features(s) and not self.modalities:
            raise UserError(f"{s.model} needs at least one NAME_feat.npy in the data folder")
        if s.model == "SLMRec" and len(self.modalities) != 2:
            raise UserError(f"SLMRec needs two NAME_feat.npy in the data folder, it has {len(self.modalities)}")
        if len(self.modalities) > 2 and M.diffuses(s) and s.estimator == "unet":
            raise UserError(f"{len(self.modalities)} modalities, expected one or two: the U-Net's images have three channels")
        features = {m: torch.from_numpy(data.features[m]) for m in self.modalities}
        self.p = {k: x.to(self.device) for k, x in M.initial((data.U, data.I), features, s, torch.Generator().manual_seed(seed)).items()}
        self.graphs = SimpleNamespace(user_item=None, item_item=None, latent=None, modalities=self.modalities,
                                      features=slmrec.unit_features(self.p, self.modalities) if s.model == "SLMRec" else None)
        self.weight = torch.tensor(D.edge_weights(data), device=self.device)
        self.edges = torch.tensor(np.stack([data.pair_u, data.pair_i]), device=self.device)
        self.n_keep = D.kept_edges(len(data.pair_u), s.dropout if M.prunes(s) else 0)
        self.pools = None
        self.band = SimpleNamespace(share=0.0)         # of RealHNS
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

    # ---- what is decided once an epoch

    def race_weights(self):
        """(E) weights of the edges in the race for the places of the training graph, of MCDRec by the parameters and the last reverse process."""
        s, sizes = self.s, (self.data.U, self.data.I)
        if not self.denoises():
            return self.weight
        X = self.pools[3] if self.pools else self.p["item_id_embedding.weight"]
        self.edge_weight = dgd.edge_weights(self.p["user_embedding.weight"], X, *self.edges, s.dgd_tau)
        return dgd.values(self.edge_weight, *self.edges, *sizes, s.dgd == "direct")

    def kept_graph(self, keep):
        """(index, value) of the training graph of these edges."""
        sizes, (u, i) = (self.data.U, self.data.I), self.edges[:, keep]
        if not self.denoises():
            return D.user_item_graph(u, i, *sizes)
        return dgd.graph(self.edge_weight[keep], u, i, *sizes, self.s.dgd == "direct")

    def denoises(self):
        return M.backbone(self.s) == "MCDRec" and self.s.dgd != "off"

    @torch.no_grad()
    def choose_band(self, n):
        """RealHNS' candidates and threshold in the zero-based epoch n, from the representations of evaluation."""
        s, e = self.s, n + 1
        self.band = SimpleNamespace(share=realhns.share(e, s))
        if self.band.share:
            H_u, H_i = self.representations()
            self.band.places = realhns.draw_places(self.data.I, s, self.generator, self.device)
            self.band.table = self.band_table(H_u, H_i, self.band.places)
            self.band.cohesion = realhns.cohesion(H_i, s, self.generator)
            self.band.threshold = realhns.threshold(self.band.cohesion, e, s)

    def draw_diffusion(self, batch):
        """Distinct items of the batch with multiplicities, of MCDRec all items; mirrored steps, noise and the U-Net's mask for those that diffuse (spec 3.2)."""
        s = self.s
        if M.has_masks(s):
            return SimpleNamespace(items=self.projected_items(batch), masks=self.draw_masks(batch))
        if not M.needs_projection(s):
            return None
        if M.of_all_items(s):
            items, count = torch.arange(self.data.I, device=self.device), torch.ones(self.data.I, dtype=torch.int64, device=self.device)
        else:
            items, count = torch.unique(torch.cat([batch.positives, batch.negatives.flatten()]), return_counts=True)
        d = SimpleNamespace(items=items, count=count, t=None, noise=None, mask=None)
        if M.diffuses(s):
            d.t = self.draw_t(len(items))
            d.noise = torch.randn(len(items), s.embedding_size, device=self.device, generator=self.generator)
            if s.estimator == "unet" and s.unet_dropout > 0:
                d.mask = torch.rand(len(items), unet.MASK, device=self.device, generator=self.generator) >= s.unet_dropout
        return d

    def draw_masks(self, batch):
        """BM3's of a pass: name -> (B,d) bool, rows of equal ids equal."""
        rows = {"users": (self.data.U, batch.users), **{n: (self.data.I, batch.positives) for n in ("items", *self.modalities)}}
        return {n: self.draw_mask(*of) for n, of in rows.items()}

    def draw_mask(self, n, index):
        return self.table_mask(n, index)

    def table_mask(self, n, index):
        """(B,d) bool: rows of a mask for a whole table (n,d)."""
        return (torch.rand(n, self.s.embedding_size, device=self.device, generator=self.generator) >= self.s.dropout)[index]

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
        admissible = (~seen).sum(1)
        x = torch.rand(len(positives), device=self.device, generator=self.generator, dtype=torch.float64)
        chosen = candidates[self.one_of_top(sim, k, (x * admissible.clamp(max=k)).long())]
        return torch.where(admissible > 0, chosen, fallback)

    def one_of_top(self, sim, k, r):
        """(B) columns: of the k largest of a row the one of rank r (B), below the number of finite ones among them."""
        return torch.topk(sim, k, dim=1).indices.gather(1, r[:, None]).squeeze(1)

    @torch.no_grad()
    def choose_hard(self, r, batch):
        """Hard negatives of the step's own representations (negative_sampling.md 4 to 6)."""
        s, users = self.s, batch.users
        if s.sampler == "popularity":
            return H.given(self.draw_popular(users)[None])
        if s.sampler == "realhns":
            return H.given(self.choose_from_band(r, batch)[None])
        candidates, h_u = self.draw_negatives(users, s.n_candidates).T, r.users[users]
        if s.sampler == "dns":
            rank = torch.randint(0, s.top_m, (len(users), 1), device=self.device, generator=self.generator)
            return H.given(H.ranked(h_u, r.items[None], candidates)[0].gather(1, rank).T)
        alpha = torch.rand(len(r.layers), len(users), device=self.device, generator=self.generator)
        return H.given(self.choose_layers(h_u, r.layers, batch.positives, candidates, alpha), alpha)

    HARD_BLOCK = None        # rows at a time whose candidates are in memory; None: all

    def choose_from_band(self, r, batch):
        """(B) items of RealHNS: of a row whose slot is active one of the band that is left, of the others a second uniform one."""
        out, band = self.draw_negatives(batch.users, 1)[0], self.band
        if not band.share:
            return out
        x = torch.rand(2, len(out), device=self.device, generator=self.generator)
        active = (x[0] < band.share).nonzero()[:, 0]
        T = realhns.n_best(band.table.shape[1], self.s)
        for rows in active.split(self.HARD_BLOCK or len(active)):
            own = band.table[batch.users[rows]]
            candidates = M.gather(r.items, own.clamp(min=0))
            score = realhns.scores(r.users[batch.users[rows]], r.items[batch.positives[rows]], candidates, own >= 0, band.threshold)
            out[rows] = realhns.at_rank(score, own, T, realhns.draw_rank(score, T, x[1, rows]), out[rows])
        return out

    def choose_layers(self, h_u, layers, positives, candidates, alpha):
        """MixGCF's items (L+1,B): neither the coefficients nor the positive change which candidate wins (6.3)."""
        return candidates.expand(len(layers), *candidates.shape).gather(2, H.scores(h_u, layers, candidates).argmax(2)[..., None])[..., 0]

    def update(self, batch, diffusion, choose=None, factor=1.0):
        """Forward, backward, Adam on given draws; choose(r) picks curricular negatives from the step's own representations; Adam gets the gradient times
        the factor. -> loss"""
        self.steps += 1
        self.before(diffusion)
        with self.clock("forward"):
            r = M.represent(self.p, self.graphs, diffusion, self.modalities, self.s, self.ops)
        if r.latent is not None:
            self.keep_latent(r.latent)
        if choose:
            with self.clock("sample"), torch.no_grad():
                batch.curricular = choose(r.items)
        if H.used(self.s):
            with self.clock("sample"):
                batch.hard = self.choose_hard(r, batch)
        with self.clock("forward"):
            loss = self.loss(r, batch, diffusion)
        with self.clock("backward"):
            loss.backward()
        with self.clock("optimiser"):
            self.optimise(diffusion, factor)
        return loss.detach()

    def loss(self, r, batch, diffusion):
        return M.losses(r, batch, diffusion, self.s)["loss.total"]

    def before(self, diffusion):
        pass

    def epoch(self, n):
        """One epoch of training and, for CCDRec, the reverse process. -> losses of its steps"""
        self.set_rate(lattice.learning_rate(self.s, n))
        if M.prunes(self.s):
            with self.clock("prune"):
                self.prune()
        if self.graphs.latent is not None:
            self.graphs.latent.built = None            # the first batch makes S anew
        if self.s.sampler == "realhns":
            with self.clock("sample"):
                self.choose_band(n)
        stage, out = self.stage(n), []
        for self.j, (batch, choose) in enumerate(self.batches(stage)):
            out.append(self.run_batch(batch, choose))
        with self.clock("optimiser"):
            self.after_epoch()
        if M.diffuses(self.s):
            with self.clock("reverse"):
                self.pools = self.reverse_process()
        out = [float(x) for x in (torch.stack(out).tolist() if torch.is_tensor(out[0]) else out)]
        if not all(math.isfinite(x) for x in out):
            raise SystemExit(f"epoch {n}: the loss is not finite")
        return out

    def run_batch(self, batch, choose):
        """-> loss of the batch's first step; a second one (mirror.py) keeps the rows and the random negatives and draws the rest again."""
        losses = []
        for factor in mirror.passes(self.j, self.s):
            with self.clock("sample"):
                if losses and getattr(batch, "draw_again", None):
                    batch.curricular = batch.draw_again()
                diffusion = self.draw_diffusion(batch)
            losses.append(self.update(batch, diffusion, choose, factor))
        return torch.where(losses[-1].isnan(), losses[-1], losses[0])

    def after_epoch(self):
        pass

    def noise(self, rows):
        return torch.randn(rows, self.s.embedding_size, device=self.device, generator=self.generator)

"""Check of parity.py and replay.py without a record of the program: the form "published" (float32, torch.optim.Adam) trains and writes one."""
import copy
import json
import os
import tempfile
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

import bm3
import data as D
import hard as H
import lattice
import models as M
import parity
import published
import realhns
import replay
import safetensors_io as st
import train
import unet
from checking import report, small_data


def neighbours(K):
    """(I,k) columns of a matrix whose rows all have k entries"""
    return (K != 0).nonzero()[:, 1].view(len(K), -1)


class Recorded(train.Published):
    """Writes what docs/run-format.md lists."""

    def setup(self, features):
        self.arrays = {f"initial.{n}": x.numpy().copy() for n, x in self.p.items() if n not in M.feature_names(self.p)}
        super().setup(features)
        self.ops = type("ops", (self.ops,), {})            # its own, for what a check puts in their place
        if self.graphs.latent is not None:
            for m, O in self.graphs.latent.frozen.items():
                index = neighbours(O)
                self.arrays[f"graph.frozen.{m}.index"], self.arrays[f"graph.frozen.{m}.value"] = index.numpy(), O.gather(1, index).numpy()
        elif M.has_features(self.s):
            graph = self.graphs.item_item
            self.arrays["graph.item_item.index"], self.arrays["graph.item_item.value"] = graph.indices().numpy().astype(np.int32), graph.values().numpy()

    def prune(self):
        keep = D.prune(self.race_weights(), self.n_keep, self.generator)
        self.graphs.user_item = self.coo(*self.kept_graph(keep), self.data.U + self.data.I)
        self.kept = self.edges[:, keep]

    # what chance decides, as it is drawn
    def draw_candidates(self):
        self.drawn = super().draw_candidates().sort().values
        return self.drawn

    def one_of_top(self, sim, k, r):
        self.rank = torch.where((sim > -np.inf).any(1), r, -1)
        return super().one_of_top(sim, k, r)

    def noise(self, rows):
        self.noises.append(super().noise(rows))
        return self.noises[-1]

    def loss(self, r, batch, diffusion):
        out = M.losses(r, batch, diffusion, self.s)
        of = self.passes[self.n_pass]
        append = lambda name, x: of.setdefault(name, []).append(x.detach().numpy())   # noqa: E731
        if self.n_pass == 0:
            self.losses.append([out[f"loss.{n}"].item() for n in self.parts])
            for name in ("users", "positives") + (("negatives",) if self.s.n_neg else ()):
                append(name, getattr(batch, name))
            if diffusion and not M.has_masks(self.s):
                append("items", diffusion.items)
        if M.has_masks(self.s):
            for name, mask in diffusion.masks.items():
                append("mask." + name, bm3.packed(mask))
        elif diffusion and diffusion.t is not None:
            append("t", diffusion.t), append("noise", diffusion.noise)
            if diffusion.mask is not None:
                append("mask.unet", unet.packed(diffusion.mask))
        if batch.curricular is not None:
            append("curricular", batch.curricular), append("candidates", self.drawn[None]), append("ranks", self.rank)
        if getattr(batch, "hard", None) is not None:
            append("hard", batch.hard.items)
            if batch.hard.alpha is not None:
                append("alpha", batch.hard.alpha)
        self.n_pass += 1
        return out["loss.total"]

    @torch.no_grad()
    def note_lists(self, e):
        for m in self.graphs.latent.frozen if self.graphs.latent else ():
            self.arrays[f"epoch.{e}.learned.{m}.index"] = neighbours(published.dense_knn(lattice.all_projected(self.p, m), self.graphs.latent.k)).numpy()

    def run_batch(self, batch, choose):
        self.n_pass = 0
        return super().run_batch(batch, choose)

    def record(self, path, epochs):
        s, about = self.s, []
        self.parts = list(M.own(s).LOSSES) if M.own(s) else (["bpr", "reg"] if s.model in ("BPR", "LightGCN", "LATTICE") else ["bpr", "align", "reg"] if s.model == "MCDRec" else list(replay.PARTS)) + (["bpr_hard"] if s.sampler != "none" else [])
        self.note_lists(0)
        for e in range(epochs):
            self.passes, self.losses, self.noises, self.kept = ({}, {}), [], [], None
            stage = self.stage(e)
            about.append({"negatives": "random" if stage is None else "model" if stage == "own" else ("3T/4", "T/2", "T/4", "0")[stage], "evaluated": True,
                          "valid": {}, "test": {}})
            self.epoch(e)
            out = {"losses": np.array(self.losses)}
            if self.denoises():
                out["edge_weights"] = self.edge_weight.float().numpy()
            if self.band.share:
                out["table"], out["cohesion"] = self.band.table.numpy(), np.float32([self.band.cohesion])
            for prefix, of in zip(("", "pass1."), self.passes):
                for name, x in of.items():
                    out[prefix + name] = np.concatenate(x, 1 if name in ("negatives", "hard", "alpha") else 0)
            if "items" in self.passes[0]:
                out["first_item"] = np.cumsum([0] + [len(x) for x in self.passes[0]["items"]])
            if self.kept is not None:
                out["edges"] = self.kept.numpy()
            if self.noises:
                out["reverse.start"], out["reverse.steps"] = self.noises[0].numpy(), torch.stack(self.noises[1:][::-1]).numpy()
            out["list.users"] = np.unique(np.concatenate([self.data.held[x][0] for x in ("valid", "test")]))
            H_u, H_i = self.representations()
            score = H_u[torch.from_numpy(out["list.users"])] @ H_i.T
            for b, u in enumerate(out["list.users"]):
                score[b, torch.from_numpy(self.data.items_of(u))] = -np.inf
            best = torch.topk(score.detach(), replay.K)
            out["list.items"], out["list.scores"] = best.indices.numpy(), best.values.numpy()
            self.arrays.update({f"epoch.{e}.{n}": x for n, x in out.items()})
            self.note_lists(e + 1)
        self.arrays.update({f"final.{n}": x.detach().numpy() for n, x in unet.to_simplified(self.p).items()})
        arrays = {n: x.astype(np.int32) if x.dtype.kind == "i" else x for n, x in self.arrays.items()}
        st.save(path, arrays, {"format": "ccdrec-run", "version": "1", "settings": json.dumps({k: v for k, v in vars(s).items() if k != "skip_idle"}),
                               "modalities": json.dumps(self.modalities), "data": "small", "program": "check_parity.py", "epochs": json.dumps(about),
                               "losses": json.dumps(self.parts)})


def wrong_choices():
    """(name, model, settings, choose_hard): samplers that choose by another rule. Their records agree in every loss; only the choice gives them away."""
    def second_best(f, r, batch):
        return H.given(H.ranked(r.users[batch.users], r.items[None], f.draw_negatives(batch.users, f.s.n_candidates).T)[:, :, 1])

    def by_layer_0(f, r, batch):
        return H.given(H.ranked(r.users[batch.users], r.Q[None], f.draw_negatives(batch.users, f.s.n_candidates).T)[:, :, 0])

    def one_choice_for_all_layers(f, r, batch):
        best = H.ranked(r.users[batch.users], r.items[None], f.draw_negatives(batch.users, f.s.n_candidates).T)[:, :, 0]
        return H.given(best.expand(len(r.layers), -1), torch.rand(len(r.layers), len(batch.users)))

    def uniform(f, r, batch):
        return H.given(f.draw_negatives(batch.users, 1))

    def first_again(f, r, batch):
        if f.n_pass == 0:
            f.first_choice = train.Published.choose_hard(f, r, batch)
        return f.first_choice

    dns, mixgcf = dict(sampler="dns", n_candidates=8), dict(sampler="mixgcf", n_candidates=8)
    return (("the second best", "BPR", dns, second_best), ("by layer 0 alone", "LightGCN", dict(sampler="dns", n_candidates=30), by_layer_0),
            ("one item for all layers", "FREEDOM", mixgcf, one_choice_for_all_layers), ("uniform for popularity", "BPR", dict(sampler="popularity", popularity_power=3.0), uniform),
            ("a second pass with the first one's choice", "BPR", dict(use_mg=True, **dns), first_again))


def without_candidates(run):
    run = copy.copy(run)
    run.arrays = {n: x for n, x in run.arrays.items() if not n.endswith((".table", ".cohesion"))}
    return run


def wrong_programs():
    """(name, model, settings, patches(form)): what a program could get wrong beside the choice of hard negatives. patches: while it runs and writes its record."""
    on = mock.patch.object
    latent = dict(reg_weight=0.05)
    band = dict(sampler="realhns", realhns_start=0, realhns_clusters=6, realhns_p_max=60.0, realhns_candidates=20, realhns_top=0.2)
    scores, square_reg, optimise = realhns.scores, lattice.square_reg, train.Published.optimise

    def skips(f):                    # gradients dropped: the graph's parameters are not stepped without one
        def wrong(diffusion, factor):
            kept, f.graphs.latent = f.graphs.latent, None
            optimise(f, diffusion, factor)
            f.graphs.latent = kept
        return on(f, "optimise", wrong)

    def like(h_u, h_p, rows, listed, theta):               # the candidates that are too like the positive, alone
        inside = scores(h_u, h_p, rows, listed, theta)
        return scores(h_u, h_p, rows, listed, 2.0).masked_fill(inside > -np.inf, -np.inf)

    def from_items(f):
        return on(f, "race_weights", lambda: (setattr(f, "pools", None), Recorded.race_weights(f))[1])

    return (("graph parameters without a gradient left alone", "LATTICE", latent, skips),
            ("S made anew in every batch", "LATTICE", latent, lambda f: on(f, "keep_latent", lambda S: None)),
            ("S without gradients", "LATTICE", latent, lambda f: on(f.ops, "latent_graph", staticmethod(lambda *a, g=f.ops.latent_graph: g(*a).detach()))),
            ("a regulariser by the rows of a batch", "LATTICE", latent, lambda f: on(lattice, "square_reg", lambda u, p, n, B: square_reg(u, p, n, len(u)))),
            ("the graph of the raw features alone evaluated", "LATTICE", dict(lambda_coeff=0.5), lambda f: on(f, "representations", lambda: M.final_tables(
                f.p, SimpleNamespace(user_item=f.full_graph, item_item=None, latent=SimpleNamespace(built=sum(f.graphs.latent.frozen.values()))), f.s, None, f.ops))),
            ("plain degrees for the values", "CCDRec", dict(backbone="MCDRec"), lambda f: on(f, "kept_graph", lambda keep: D.user_item_graph(
                *f.edges[:, keep], f.data.U, f.data.I))),
            ("weights of all edges from the item table", "CCDRec", dict(backbone="MCDRec", cns=False, ndi_negative="index"), from_items),
            ("hard negatives like the positive", "LightGCN", band, lambda f: on(realhns, "scores", like)),
            ("the lowest scores", "LightGCN", band, lambda f: on(realhns, "scores", lambda h_u, *a: scores(-h_u, *a))),
            ("any candidate", "LightGCN", band, lambda f: on(realhns, "n_best", lambda N, s: N)),
            ("every slot active", "LightGCN", band, lambda f: on(realhns, "share", lambda e, s: 1.0)),
            ("a threshold that is the cohesion", "LightGCN", band, lambda f: on(realhns, "threshold", lambda c, e, s: c)),
            ("a band that begins at the top half", "LightGCN", dict(band, realhns_p_min=20.0), lambda f: on(realhns, "draw_places", lambda I, s, g, d: 1 + torch.arange(20))))


def check_parity():
    data = small_data(np.random.default_rng(3))
    dma = dict(ndi=False, cns=False)
    of_unet = dict(embedding_size=64, train_batch_size=512, learning_rate=1e-5)      # few steps and small ones: replay.py
    band = dict(realhns_start=1, realhns_clusters=6, realhns_p_max=50.0, realhns_candidates=20, realhns_top=0.2)
    with tempfile.TemporaryDirectory() as folder:
        for model, setting in (("LightGCN", dict(sampler="dns", n_candidates=8, top_m=2)), ("BPR", dict(sampler="popularity", popularity_power=1.0)),
                               ("FREEDOM", dict(sampler="mixgcf", n_candidates=8, use_mg=True, reg_weight=0.01)), ("BPR", dict(use_mg=True, alpha1=0.5)),
                               ("CCDRec", dict(sampler="dns", n_candidates=4, omega=0.7, n_neg=2, use_mg=True, **dma)),
                               ("CCDRec", dict(use_mg=True, dtau=1, tau_end=1, candidate_ratio=0.5)),
                               ("LATTICE", dict(reg_weight=0.05, learning_rate_scheduler=[0.8, 2.0])),
                               ("LATTICE", dict(reg_weight=0.01, use_mg=True, n_mm_layers=2, knn_k=4, sampler="mixgcf", n_candidates=8)),
                               ("CCDRec", dict(backbone="LATTICE", reg_weight=0.01, dtau=1, tau_end=1, candidate_ratio=0.5, lambda_coeff=0.5)),
                               ("CCDRec", dict(backbone="MCDRec", dgd_tau=0.5)), ("CCDRec", dict(backbone="MCDRec", dgd="direct", use_mg=True, **dma)),
                               ("MCDRec", dict(reg_weight=0.01, **of_unet)), ("MCDRec", dict(estimator="attention", use_mg=True, n_neg=2)),
                               ("MCDRec", dict(mrd=False, sampler="dns", n_candidates=8)), ("MCDRec", dict(unet_dropout=0.0, n_neg=2, **of_unet)),
                               ("CCDRec", dict(backbone="MCDRec", estimator="unet", dtau=1, candidate_ratio=0.5, **of_unet)),
                               ("LightGCN", dict(sampler="realhns", **band)), ("LATTICE", dict(sampler="realhns", use_mg=True, reg_weight=0.05, **band))):
            form = Recorded(data, M.settings(**{**dict(model=model, train_batch_size=64, embedding_size=8, timesteps=4), **setting}), compile="off")
            path, label = os.path.join(folder, "run.safetensors"), f"parity, {model} {setting}"
            form.record(path, 3)
            run = replay.Run(path)
            done = replay.Replay(run, data, torch.float64).all()
            for text in done.wrong[:3]:
                print(f"  said: {text}")
            report(f"{label}: what is wrong with a right record", len(done.wrong), 0)
            report(f"{label}: hard negatives, mirror batches that were not looked at", (done.seen.hard == 0) * (form.s.sampler != "none") +
                   (done.seen.mirrored == 0) * form.s.use_mg, 0)
            if setting.get("sampler") == "realhns":
                done = replay.Replay(without_candidates(run), data, torch.float64).all()
                report(f"{label}: the same, its candidates not recorded", len(done.wrong) + (done.seen.hard == 0), 0)
            missed = [n for n, spoiled in parity.plants(run, data).items() if not replay.Replay(spoiled, data, torch.float64).all().wrong]
            report(f"{label}: planted faults of {len(parity.plants(run, data))} not seen: {', '.join(missed) or 'none'}", len(missed), 0)
        for name, model, setting, choose in wrong_choices():
            form = Recorded(data, M.settings(model=model, train_batch_size=64, embedding_size=8, learning_rate=0.05, **setting), compile="off")
            form.choose_hard = lambda r, batch, f=form, choose=choose: choose(f, r, batch)
            form.record(path, 3)
            done = replay.Replay(replay.Run(path), data, torch.float64).all()
            report(f"parity, {model} {setting['sampler']}: a program that chooses {name} is not seen ({done.seen.astray:.3g} standard errors)", not done.wrong, 0)
        for name, model, setting, patches in wrong_programs():
            form = Recorded(data, M.settings(**{**dict(model=model, train_batch_size=64, embedding_size=8, timesteps=4, learning_rate=0.01), **setting}), compile="off")
            with patches(form):
                form.record(path, 8 if setting.get("sampler") == "realhns" else 4)         # its share of active slots grows
            done = replay.Replay(replay.Run(path), data, torch.float64).all()
            report(f"parity, {model}: a program with {name} is not seen (it is: {done.wrong[0][:90] if done.wrong else ''})", not done.wrong, 0)
            if name in ("every slot active", "a band that begins at the top half"):
                done = replay.Replay(without_candidates(replay.Run(path)), data, torch.float64).all()
                report(f"parity, {model}: the same, its candidates not recorded ({done.seen.astray:.3g} standard errors)", not done.wrong, 0)

"""What comes of a golden case (golden_cases.py): the result by autograd, in float64 or float32, and the masses of its arrays.

Mass of a forward array: the same sums with absolute values (layers, projections, softmax-weighted values, dot products), the largest of
a row.
Mass of a gradient: sum over k of |dL/dy_k| |dy_k/dtheta|, y_k the elements of all rows on their way into a loss term, each use by itself
(h_u once with the positive and once with each negative, and so on). For everything linear between the row and the parameter that is the
sum of the absolute values of the terms; inside the estimator, where terms cancel once more, it is a lower bound. It is never 0 where
opposite terms cancel, as in the biases of FREEDOM's modality branch. Again the largest of a row.
Pools: a row's mass is the sum of its absolute terms in the last reverse step.
With MCDRec's U-Net what comes of the rounding in the network is added to both: unet_mass.py.
"""
import functools
import json
from types import SimpleNamespace

import numpy as np
import torch

import bm3
import golden_lattice
import golden_others
import hard as H
import lattice
import models as M
import slmrec
import unet
import unet_mass


def arguments(arrays, metadata, dtype=torch.float64):
    """-> (p, graphs, batch, diffusion, modalities, settings) of models.step, from a case's arrays; p's trained tensors want gradients."""
    s = M.settings(**json.loads(metadata["settings"]))
    modalities = json.loads(metadata["modalities"])
    a = {n: torch.tensor(x).to(dtype if x.dtype.kind == "f" else torch.int64) for n, x in arrays.items()}
    p = {n[6:]: x for n, x in a.items() if n.startswith("param.")}
    for n in M.trained(p, s):
        p[n].requires_grad_(True)
    U = len(p["user_embedding.weight"]) if "user_embedding.weight" in p else 0
    I = len(p["item_id_embedding.weight"]) if "item_id_embedding.weight" in p else len(p["id_embedding"])     # MMGCN's nodes stand together

    def dense(which, n):
        if f"graph.{which}.index" in a:
            return torch.zeros(n, n, dtype=dtype).index_put_(tuple(a[f"graph.{which}.index"]), a[f"graph.{which}.value"], accumulate=True)

    graphs = SimpleNamespace(user_item=dense("user_item", U + I), item_item=dense("item_item", I), latent=golden_lattice.from_arrays(a, modalities),
                             modalities=modalities, features=slmrec.unit_features(p, modalities) if s.model == "SLMRec" else None)
    batch = SimpleNamespace(**{n: a.get(f"batch.{n}") for n in ("users", "positives", "negatives", "curricular", "frozen")})
    batch.hard = H.given(a["hard.items"], a.get("hard.alpha")) if "hard.items" in a else None
    diffusion = SimpleNamespace(**{n: a.get(f"diffusion.{n}") for n in ("items", "t", "noise")})
    if M.has_masks(s):
        diffusion.items, diffusion.masks = torch.unique(batch.positives), bm3.masks_from(a, modalities, p["user_embedding.weight"].shape[1])
    elif diffusion.items is not None:
        drawn = torch.cat([batch.positives, batch.negatives.flatten()])
        diffusion.count = torch.ones_like(diffusion.items) if M.of_all_items(s) else (drawn[None] == diffusion.items[:, None]).sum(1)
        diffusion.mask = unet.unpacked(a["mask.unet"]) if "mask.unet" in a else None
    return p, graphs, batch, diffusion, modalities, s


class DenseOps(M.Ops):
    """Products with dense matrices: tiny cases, any dtype, and batched gradients."""
    propagate = staticmethod(functools.partial(M.propagate, mm=torch.mm))
    layers = staticmethod(functools.partial(M.layers, mm=torch.mm))
    item_mm = staticmethod(torch.mm)


def watching():
    """DenseOps that remember: -> (ops, namespace of layers [Ego_0 .. Ego_L] and Hhat, None where the model has none)."""
    seen = SimpleNamespace(layers=[], Hhat=None)

    class Watching(DenseOps):
        @staticmethod
        def layers(A, ego, L):
            seen.layers = M.layers(A, ego, L, torch.mm)
            return seen.layers

        @staticmethod
        def propagate(A, ego, L):
            return sum(Watching.layers(A, ego, L)) / (L + 1)

        @staticmethod
        def item_mm(S, x):
            seen.Hhat = S @ x
            return seen.Hhat

        @staticmethod
        def latent_mm(S, x):
            seen.Hhat = lattice.product(S, x)
            return seen.Hhat

    return Watching, seen


def reached(graphs, batch, U, L, wrapped):
    """What a batch reaches: ([(N) mask of the rows of Ego_l that are read, l = 0..L], (I) mask of those of Hhat)."""
    items = [batch.positives, batch.negatives.flatten()] + ([batch.curricular] if batch.curricular is not None else [])
    rows = torch.zeros(len(graphs.user_item), dtype=torch.bool)
    rows[batch.users], rows[U + torch.cat(items)] = True, True
    layers = [rows]
    for _ in range(L):
        layers.insert(0, layers[0] | (graphs.user_item[layers[0]] != 0).any(0))
    return layers, layers[0 if wrapped else L][U:]


def looks_within(s, everything):
    """Whether scores and gradients between parameters and losses are part of the result."""
    return everything or H.used(s) or M.backbone(s) == "LATTICE"


def inner_arrays(out, seen, s, everything):
    """name -> tensor of the step's graph: the arrays between parameters and losses that have a gradient in the result."""
    inner = {n: x for n, x in out.items() if n.startswith(("h.", "projection.")) or n in ("e_t", "e0_hat")}
    if s.sampler == "mixgcf":         # the mixed negative is no row of a table: its gradient is that of the layers
        inner.pop("h.hard", None)
    inner.update({n: x for n, x in out.items() if everything and n.startswith("projection_all.")})
    if seen.Hhat is not None:
        inner["hhat"] = seen.Hhat
    if seen.layers:
        inner["ego.0"] = seen.layers[0]
    return inner


def estimator_arrays(e_t, projections, tau, W_q, W_k, W_v):
    """Normalised tokens (n,K,d), attention (n,K,K), sum_c w_c x_c (n,d), and the masses of a row of each."""
    d = e_t.shape[1]
    token = torch.stack([e_t, *projections, tau.expand_as(e_t)], 1)
    x = torch.nn.functional.layer_norm(token, (d,), eps=1e-5)
    q, k = x @ W_q.T, x @ W_k.T
    a = torch.softmax(q @ k.transpose(1, 2) / np.sqrt(d), dim=2)
    w = a.mean(1, keepdim=True)
    rstd = (token.var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()
    score = (x.abs() @ W_q.T.abs()) @ (x.abs() @ W_k.T.abs()).transpose(1, 2) / np.sqrt(d)
    mass = {"x": (token.abs() + token.abs().mean(-1, keepdim=True)) * rstd, "a": a * (1 + score), "s": (w @ x.abs()).squeeze(1)}
    return {"x": x, "a": a, "s": (w @ x).squeeze(1)}, mass


def step_result(arrays, metadata, dtype=torch.float64, everything=False):
    """name -> tensor: the result of a step as docs/step-format.md lists it; `everything`: all of it, else without what watching() sees. With a hard
    negative, and of LATTICE: scores and gradients between parameters and losses, too, but no rows of layers, since which of them are reached is the
    program's affair."""
    p, graphs, batch, diffusion, modalities, s = arguments(arrays, metadata, dtype)
    within = looks_within(s, everything)
    ops, seen = watching() if within else (DenseOps, None)
    out = M.step(p, graphs, batch, diffusion, modalities, s, ops)
    names = M.trained(p, s)
    inner = inner_arrays(out, seen, s, everything) if within else {}
    out = {n: x for n, x in out.items() if everything or not n.startswith("projection_all.")}
    grads = torch.autograd.grad(out["loss.total"], [p[n] for n in names] + list(inner.values()), allow_unused=True)
    out.update({f"grad.{n}": torch.zeros_like(x) if g is None else g for (n, x), g in zip(inner.items(), grads[len(names):])})
    if within:
        out.update({f"score.{n[2:]}": (out["h.users"] * x).sum(-1) for n, x in out.items() if n.startswith("h.") and n != "h.users"})
    if everything:
        L, wrapped = len(seen.layers) - 1, s.model == "CCDRec"
        layers, of_hhat = reached(graphs, batch, len(p["user_embedding.weight"]), L, wrapped)
        # rows that are not reached are zero in the result; Ego_0 is the tables themselves where nothing is put in their place
        out.update({f"ego.{l}": x * rows[:, None] if l or wrapped else x for l, (x, rows) in enumerate(zip(seen.layers, layers))})
        if seen.Hhat is not None:
            out["hhat"] = seen.Hhat * of_hhat[:, None]
        if "e_t" in out:
            out["schedule.sqrt_abar"], out["schedule.sqrt_1m_abar"] = M.noise_levels(s.timesteps, s.noise_schedule, dtype, out["e_t"].device)
            tau = M.time_table(s.timesteps, out["e_t"].shape[1], dtype, out["e_t"].device)[diffusion.t]
            of_estimator, _ = estimator_arrays(out["e_t"], [out[f"projection.{m}"] for m in modalities], tau, *M.estimator_weights(p))
            out.update({f"estimator.{n}": x for n, x in of_estimator.items()})
    t, factor = int(metadata["t"]), float(metadata.get("gradient", 1))
    for n, g in zip(names, grads):
        g = torch.zeros_like(p[n]) if g is None else g
        m, v = (torch.tensor(arrays[f"adam.{x}.{n}"]).to(dtype) if f"adam.{x}.{n}" in arrays else torch.zeros_like(g) for x in "mv")
        out[f"grad.{n}"] = g
        out[f"new.{n}"] = M.adam(p[n], factor * g, m, v, t, s.learning_rate, weight_decay=s.weight_decay)[0]
    return {n: x.detach() for n, x in out.items()}


def step_mass(arrays, metadata, everything=False):
    """name -> tensor: the masses of the result's arrays (none for new.*)."""
    p, graphs, batch, diffusion, modalities, s = arguments(arrays, metadata)
    taps = []

    def tap(x):
        y = x.view_as(x)
        taps.append(y)
        return y

    within = looks_within(s, everything)
    ops, seen = watching() if within else (DenseOps, None)
    of_unet = M.diffuses(s) and s.estimator == "unet"
    if of_unet:                                               # what is before the network is left to unet_mass
        class ops(ops):
            unet = staticmethod(lambda *about: unet.simplified(*about).detach().requires_grad_(True))
    out = M.step(p, graphs, batch, diffusion, modalities, s, ops, tap)
    to = {**{n: p[n] for n in M.trained(p, s)}, **(inner_arrays(out, seen, s, everything) if within else {})}
    if of_unet:
        to["e0_hat"] = out["e0_hat"]
    taps = [y for y in taps if y.requires_grad]
    mass = {f"mass.grad.{n}": torch.zeros_like(x) for n, x in to.items()}
    for y, g in zip(taps, torch.autograd.grad(out["loss.total"], taps, retain_graph=True)):
        one = torch.diag(g.flatten()).view(-1, *g.shape)      # row k: element k of the gradient alone
        for n, terms in zip(to, torch.autograd.grad(y, list(to.values()), one, retain_graph=True, allow_unused=True, is_grads_batched=True)):
            if terms is not None:
                mass[f"mass.grad.{n}"] += terms.abs().sum(0)

    if of_unet:
        entering = mass["mass.grad.e0_hat"] if within else mass.pop("mass.grad.e0_hat")
        shaken = unet_mass.of_step(p, graphs, batch, diffusion, modalities, s, DenseOps, entering)
        for n in M.trained(p, s):
            mass[f"mass.grad.{n}"] += shaken[f"grad.{n}"]

    if M.own(s):
        mass["mass.loss.total"] = golden_others.loss_mass(p, graphs, batch, diffusion, modalities, s, DenseOps)
        return {n: (x.amax(-1, keepdim=x.dim() == 1) if x.dim() else x).detach() for n, x in mass.items()}
    with torch.no_grad():                                     # the forward sums with absolute values
        p = {n: x.detach() for n, x in p.items()}
        P, Q, u = p["user_embedding.weight"].abs(), p["item_id_embedding.weight"].abs(), batch.users
        if out_projections := {n: None for n in out if n.startswith("projection.")}:
            for m in modalities:
                x, w, b = (p[f"{m}_{n}"].abs() for n in ("embedding.weight", "trs.weight", "trs.bias"))
                out_projections[f"projection.{m}"] = x[diffusion.items] @ w.T + b
            mass.update({f"mass.{n}": x for n, x in out_projections.items()})
        users, items, layers = P, Q, [Q]
        if s.model != "BPR":
            Hhat, times = Q, lambda x: graphs.item_item @ x   # noqa: E731
            if graphs.latent is not None:
                S, of_all = latent_mass(p, graphs.latent, s.lambda_coeff)
                mass["mass.s.value"] = S.value
                mass.update({f"mass.projection_all.{m}": x for m, x in of_all.items() if everything})
                times = lambda x: lattice.product(S, x)   # noqa: E731
            for _ in range(s.n_mm_layers if M.has_features(s) else 0):
                Hhat = times(Hhat)
            ego = Hhat if s.model == "CCDRec" else Q
            if "e_t" in out:
                keep, blur = M.noise_levels(s.timesteps, s.noise_schedule, torch.float64, Q.device)
                t = diffusion.t
                mass["mass.e_t"] = keep[t][:, None] * Q[diffusion.items] + blur[t][:, None] * diffusion.noise.abs()
                tau = M.time_table(s.timesteps, Q.shape[1], torch.float64, Q.device)[t]
                mass["mass.e0_hat"] = out["e0_hat"].abs() + shaken["e0_hat"] if of_unet else \
                    estimate_mass(out["e_t"], [out[n] for n in out_projections], tau, *M.estimator_weights(p))
                if M.of_all_items(s) or s.dma:
                    ego = ego.clone()
                    ego[diffusion.items] = (1 - s.mu) * ego[diffusion.items] + s.mu * mass["mass.e0_hat"]
            E = ops.layers(graphs.user_item, torch.cat([P, ego]), s.n_ui_layers)
            users, items = (sum(E) / len(E)).split([len(P), len(Q)])
            beside = Hhat if M.has_features(s) else 0
            if graphs.latent is not None:                     # rows of length 1
                beside = Hhat / seen.Hhat.norm(dim=1, keepdim=True)
            items, layers = items + beside, [x[len(P):] + beside for x in E]
        rows = {"h.users": users[u], "h.positives": items[batch.positives], "h.negatives": items[batch.negatives]}
        if "h.curricular" in out:
            rows["h.curricular"] = items[batch.curricular]
        if s.sampler == "mixgcf" and "h.hard" in out:
            a = batch.hard.alpha[..., None]
            rows["h.hard"] = sum(w * v[batch.positives] + (1 - w) * v[n] for w, v, n in zip(a, layers, batch.hard.items)) / len(layers)
        elif "h.hard" in out:
            rows["h.hard"] = items[batch.hard.items[0]]
        mass.update({f"mass.{n}": x for n, x in rows.items()})
        if within:
            mass.update({f"mass.score.{n[2:]}": (rows["h.users"] * x).sum(-1) for n, x in rows.items() if n != "h.users"})
        if everything:
            L, wrapped = s.n_ui_layers, s.model == "CCDRec"
            layers, of_hhat = reached(graphs, batch, len(P), L, wrapped)
            mass.update({f"mass.ego.{l}": x * reach[:, None] if l or wrapped else x for l, (x, reach) in enumerate(zip(seen.layers, layers))})
            if seen.Hhat is not None:
                mass["mass.hhat"] = Hhat * of_hhat[:, None]
            if "e_t" in out:
                _, of_estimator = estimator_arrays(out["e_t"], [out[n] for n in out_projections], tau, *M.estimator_weights(p))
                mass.update({f"mass.estimator.{n}": x for n, x in of_estimator.items()})
        # losses: a log-sigmoid changes at most as much as its argument, whose mass is that of the dot products
        dots = lambda c: (rows["h.users"] * (rows["h.positives"] + c)).sum(-1).mean()   # noqa: E731
        last = batch.frozen.abs() if batch.frozen is not None else rows.get("h.curricular")
        omega = s.omega if H.used(s) or s.model == "CCDRec" and last is not None else 0.0
        mass["mass.loss.bpr"] = out["loss.bpr"] + (1 - omega) * dots(rows["h.negatives"])
        mass["mass.loss.bpr_curricular"] = out["loss.bpr_curricular"] + (omega * dots(last) if last is not None else 0)
        mass["mass.loss.align"] = out["loss.align"] * 2
        if "e_t" in out:
            gap = (out["e_t"] - out["e_t"]) + Q[diffusion.items] + mass["mass.e0_hat"]
            mass["mass.loss.align"] = s.lambda_dm * (diffusion.count[:, None] * gap ** 2).sum() / diffusion.count.sum() / gap.shape[1]
        mass["mass.loss.reg"] = out["loss.reg"]
        if graphs.latent is not None:
            squares = sum((out[n].abs() * rows[n]).sum() / (s.n_neg if n == "h.negatives" else 1) for n in ("h.users", "h.positives", "h.negatives"))
            mass["mass.loss.reg"] = s.reg_weight / s.train_batch_size * squares
        elif M.prunes(s) and s.reg_weight > 0:
            at = torch.searchsorted(diffusion.items, torch.cat([batch.positives[None], batch.negatives]))
            for h in out_projections.values():
                mass["mass.loss.reg"] = mass["mass.loss.reg"] + s.reg_weight * (rows["h.users"] * (h[at[0]] + h[at[1:]])).sum(-1).mean()
        parts = ["bpr", "bpr_curricular", "align", "reg"]
        if H.used(s):
            parts.append("bpr_hard")
            mass["mass.loss.bpr_hard"] = out["loss.bpr_hard"] + omega * dots(rows["h.hard"])
        mass["mass.loss.total"] = sum(mass[f"mass.loss.{n}"] for n in parts)
    for n in parts:
        del mass[f"mass.loss.{n}"]
    mass = {n: (x.amax(-1, keepdim=x.dim() == 1) if x.dim() else x).detach() for n, x in mass.items()}
    if everything and "e_t" in out:                           # each number of a schedule by itself
        mass["mass.schedule.sqrt_abar"], mass["mass.schedule.sqrt_1m_abar"] = keep, blur
    return mass


def latent_mass(p, latent, lambda_coeff):
    """-> (LATTICE's S with the masses of its entries in their place, name -> mass of the projections (I,d) where they are computed). A length, a row sum and
    its root bring their relative error into what they divide."""
    S, of_all = lattice.item_graph(p, latent, lambda_coeff), {}
    of_K = {m: K.abs() for m, K in S.values.items()}
    for m, y in S.projection.items():
        x, w, b = (p[f"{m}_{n}"].abs() for n in ("embedding.weight", "trs.weight", "trs.bias"))
        of_all[m] = x @ w.T + b
        length, index = y.norm(dim=1, keepdim=True), latent.learned[m]
        one, error = y.abs() / length, of_all[m] / length
        of_K[m] = (one[:, None] * error[index] + error[:, None] * one[index]).sum(2)
    relative = sum(w * of_K[m].sum(1) for w, m in zip(S.weight, of_K)) * S.scale ** 2
    k = next(iter(of_K.values())).shape[1]
    mass = S.value.abs()
    for j, ((m, K), w) in enumerate(zip(of_K.items(), S.weight)):
        index, s = latent.learned[m], S.scale
        ends = s[:, None] * lattice.at_columns(s, index)
        mass[:, j * k:(j + 1) * k] = (1 - lambda_coeff) * w * ends * (K + S.values[m].abs() * (relative[:, None] + lattice.at_columns(relative, index)) / 2)
    return SimpleNamespace(column=S.column, value=mass), of_all


def estimate_mass(e_t, projections, tau, W_q, W_k, W_v):
    """Absolute terms of sum_c (mean_r a_rc) (token_c W_v), per item and component."""
    d = e_t.shape[1]
    token = torch.nn.functional.layer_norm(torch.stack([e_t, *projections, tau.expand_as(e_t)], 1), (d,), eps=1e-5)
    a = torch.softmax((token @ W_q.T) @ (token @ W_k.T).transpose(1, 2) / np.sqrt(d), dim=2)
    return (a.mean(1, keepdim=True) @ token.abs()).squeeze(1) @ W_v.T.abs()


def reverse_result(arrays, metadata, dtype=torch.float64, everything=False):
    p, _, _, _, modalities, s = arguments(arrays, metadata, dtype)
    p = {n: x.detach() for n, x in p.items()}
    noise = torch.tensor(arrays["noise.steps"]).to(dtype)
    all_items = torch.arange(len(p["item_id_embedding.weight"]))
    projections = [M.Ops.project(p, m, all_items) for m in modalities]
    steps = iter(range(1, 1 + s.timesteps))
    mass, x0, mass_x0 = {0: None}, {}, {}
    tau, of_unet = M.time_table(s.timesteps, len(p["item_id_embedding.weight"][0]), dtype), s.estimator == "unet"

    def answer(e, zero_based):             # notes the mass of the state each call leads to: |A| mass(x0) + |B| |e| (+ sigma |z|)
        j = next(steps)
        t, c = s.timesteps - j + 1, M.schedule(s.timesteps, s.noise_schedule, s.noise_prediction_form)
        x0[t] = M.answers(p, s, e, projections, zero_based, M.Ops)
        mass_x0[t] = x0[t].abs() if of_unet else estimate_mass(e, projections, tau[zero_based], *M.estimator_weights(p))
        mass[j] = abs(c.A[t]) * mass_x0[t] + c.B[t] * e.abs() + c.sigma[t] * noise[t - 1].abs()
        return x0[t]

    start = torch.tensor(arrays["noise.start"]).to(dtype)
    pools = M.reverse(p, projections, s, start, lambda t: noise[t - 1], answer)
    keep, blur = M.noise_levels(s.timesteps, s.noise_schedule, dtype, start.device)
    mass[0] = keep[-1] * p["item_id_embedding.weight"].abs() + blur[-1] * start.abs()
    if of_unet:                            # and what the rounding in the network, of all steps up to there, adds
        shaken = unet_mass.of_reverse(p, s, projections, start, noise)
        mass_x0 = {t: x + shaken[f"x0.{t}"] for t, x in mass_x0.items()}
        mass = {j: x + shaken[f"state.{j}"] for j, x in mass.items()}
    out = {f"pool.{j}": x for j, x in enumerate(pools)}
    of_out = {f"mass.pool.{j}": mass[n].amax(-1) for j, n in enumerate(M.pool_steps(s.timesteps))}
    if everything:
        c, T = M.schedule(s.timesteps, s.noise_schedule, s.noise_prediction_form), range(1, 1 + s.timesteps)
        numbers = {n: torch.tensor(x[1:], dtype=dtype) for n, x in (("a", c.A), ("b", c.B), ("sigma", c.sigma))}
        numbers.update(sqrt_abar=keep, sqrt_1m_abar=blur)
        out.update({"x0": torch.stack([x0[t] for t in T]), **{f"schedule.{n}": x for n, x in numbers.items()}})
        of_out.update({"mass.x0": torch.stack([mass_x0[t].amax(-1) for t in T]), **{f"mass.schedule.{n}": x.abs() for n, x in numbers.items()}})
    return out, of_out

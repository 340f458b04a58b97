"""Checks of MCDRec: its U-Net in both forms, the schedule and the reverse process, gradients of the whole step, mistakes planted in it."""
import json
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

import golden_mcdrec
import golden_results as G
import models as M
import published
import unet
from checking import report, small_data

# mcdrec.md 2, T = 20: t, beta, abar, sqrt(abar), sqrt(1-abar), c1, c2, sigma
TABLE = ((0, .000100, .999900, .999950, .010000, 1.000000, .000000, .000000), (1, .001147, .998753, .999376, .035316, .919870, .080130, .009591),
         (4, .004289, .989069, .994519, .104552, .391100, .608896, .051161), (9, .009526, .952854, .976142, .217131, .198186, .801768, .087604),
         (14, .014763, .894003, .945517, .325571, .132674, .867145, .113567), (19, .020000, .816777, .903757, .428045, .099653, .899888, .134835))


def networks(seed):
    """A published network away from its start, and the parameters of the simplified form; float64."""
    torch.manual_seed(seed)
    net = unet.Published().double()
    with torch.no_grad():
        for n, x in net.named_parameters():
            x.copy_(x + 0.3 * torch.randn_like(x) if "norm" in n else 2 * x)
    full = {f"unet.{n}": x for n, x in net.named_parameters()}
    return net, full, {n: x.detach().clone().requires_grad_(True) for n, x in unet.to_simplified(full).items()}


def inputs(n, modalities=2):
    draw = lambda: torch.randn(n, 64, dtype=torch.float64, requires_grad=True)   # noqa: E731
    return draw(), [draw() for _ in range(modalities)], torch.randint(0, 20, (n,)), torch.rand(n, unet.MASK) >= 0.1


def check_forms():
    net, full, p = networks(1)
    report("unet: parameters of the published form", abs(sum(x.numel() for x in net.parameters()) - 137_667), 0)
    report("unet: parameters of the simplified form", abs(sum(x.numel() for x in p.values()) - 100_881), 0)
    report("unet: names and shapes of the simplified form", {n: tuple(x.shape) for n, x in p.items()} != {f"unet.{n}": x for n, (x, _) in unet.TENSORS.items()}, 0)
    for n, modalities, what in ((7, 2, "two modalities"), (1, 1, "one item, one modality")):
        e, h, t, mask = inputs(n, modalities)
        x, y = net(e, h, t, 20, mask, 0.9), unet.simplified(p, e, h, t, 20, mask, 0.9)
        g = torch.randn_like(x)
        report(f"unet, {what}: the two forms' outputs", ((x - y).abs().max() / y.abs().max()).item(), 1e-12)
        ours, theirs = torch.autograd.grad(y, [e, *h, *p.values()], g), torch.autograd.grad(x, [e, *h, *full.values()], g, allow_unused=True)
        report(f"unet, {what}: gradients of the inputs", max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(ours[:1 + len(h)], theirs)), 1e-12)
        whole = {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(full.items(), theirs[1 + len(h):])}
        live = unet.to_simplified(whole)
        largest = max(g.abs().max().item() for g in ours[1 + len(h):])
        off = {n: ((live[n] - g).abs().max() / largest).item() for n, g in zip(p, ours[1 + len(h):])}
        report(f"unet, {what}: gradients of the parameters, of the largest, worst in {max(off, key=off.get)}", max(off.values()), 1e-12)
        # of a tensor's own: on 1x1 maps the published form's general formula cancels, in double too
        off = {n: ((live[n] - g).abs().max() / g.abs().max()).item() for n, g in zip(p, ours[1 + len(h):]) if n not in unet.rounding()}
        report(f"unet, {what}: gradients of the parameters, of the tensor's own, worst in {max(off, key=off.get)}", max(off.values()), 1e-9)
        if n > 1:
            empty = unet.Published().double()
            for x in empty.parameters():
                torch.nn.init.zeros_(x)
            alive = unet.to_published({n: torch.ones_like(x) for n, x in p.items()}, empty)
            report("unet: dead parameters, other than 36,786", abs(sum((x == 0).sum().item() for x in alive.values()) - 36_786), 0)
            report("unet: gradients of dead parameters", max((g * (1 - alive[n])).abs().max().item() for n, g in whole.items()), 0)
            of_rounding = max(g.abs().max().item() for n, g in zip(p, ours[1 + len(h):]) if n in unet.rounding())
            report("unet: parameters that a norm cancels, 1,376 of them", abs(sum(p[n].numel() for n in unet.rounding()) - 1_376) + of_rounding, 1e-12)
            one = torch.stack([unet.simplified(p, e[i:i + 1], [z[i:i + 1] for z in h], t[i].item(), 20, mask[i:i + 1], 0.9)[0] for i in range(n)])
            report("unet: items one at a time, at one step each", (one - y).abs().max().item(), 1e-12)
            report("unet: masks packed and unpacked", (unet.unpacked(unet.packed(mask)) != mask).sum().item() + (unet.packed(mask).shape[1] != 267), 0)
    back = unet.to_published({**p, "x": torch.zeros(1)}, unet.Published().double())
    report("unet: live values put into another published network", (unet.published(back, e, h, t, 20, mask, 0.9) - y).abs().max().item(), 1e-12)
    sides = {}
    for x in unet.LAYERS:
        sides.setdefault(x.side, []).append(x.cin)
    report("unet: convolutions on each side's maps", sides != {8: [3, 8, 8, 8, 24, 16, 16], 4: [8, 16, 16, 32, 32, 24, 16], 2: [16, 16, 16, 32, 32, 32, 16],
                                                               1: [16, 16, 16, 16, 16, 32, 32, 32, 16]}, 0)


def check_differences(golden):
    """Finite differences in float64 through the whole step with the U-Net, a few elements of every tensor."""
    for name in golden_mcdrec.WITH_UNET:
        a, metadata = golden(f"{name}.case")
        p, graphs, batch, diffusion, modalities, s = G.arguments(a, metadata)
        loss = lambda: M.step(p, graphs, batch, diffusion, modalities, s, G.DenseOps)["loss.total"]   # noqa: E731
        names = M.trained(p, s)
        grads = dict(zip(names, torch.autograd.grad(loss(), [p[n] for n in names], allow_unused=True)))
        rng, worst, h = np.random.default_rng(4), (0.0, ""), 1e-6
        with torch.no_grad():
            for n in names:
                flat, g = p[n].view(-1), (torch.zeros_like(p[n]) if grads[n] is None else grads[n]).view(-1)
                for k in rng.integers(0, len(flat), 2):
                    before, two = flat[k].item(), []
                    for step in (h, -h):
                        flat[k] = before + step
                        two.append(loss().item())
                    flat[k] = before
                    worst = max(worst, (abs((two[0] - two[1]) / (2 * h) - g[k].item()), n))
        report(f"{name}: central differences, worst at {worst[1]}", worst[0], 2e-7)


def check_reverse():
    c = M.schedule(20)
    keep, blur = M.noise_levels(20, "linear", torch.float64, torch.device("cpu"))
    off = max(abs(x - y) for t, *row in TABLE for x, y in zip(row, (c.beta[t + 1].item(), c.abar[t + 1].item(), keep[t].item(), blur[t].item(), c.A[t + 1], c.B[t + 1], c.sigma[t + 1])))
    report("schedule: the table of mcdrec.md 2", off, 5e-7)
    report("schedule: c1 = 1, c2 = 0 at the last step", abs(c.A[1] - 1) + abs(c.B[1]), 0)
    e = torch.randn(9, 64, dtype=torch.float64)
    pools = M.reverse({"item_id_embedding.weight": e}, [], M.settings(model="MCDRec"), torch.randn_like(e), lambda t: torch.randn_like(e), lambda x, t: e)
    report("reverse: an estimator that knows the item ends at the item", (pools[3] - e).abs().max().item(), 0)


def check_near_signs(golden_file):
    """How near to 0 the D of any group of two values comes in the cases with the U-Net."""
    with mock.patch.object(M.Ops, "unet", staticmethod(lambda *about: unet.simplified(*about, f=golden_mcdrec.Watched))):
        for name in (*golden_mcdrec.WITH_UNET, "reverse_mcdrec_unet"):
            golden_mcdrec.Watched.least = np.inf
            a, metadata = golden_file(f"{name}.case")
            p, graphs, batch, diffusion, modalities, s = G.arguments(a, metadata)
            with torch.no_grad():
                if "batch.users" in a:
                    ops = type("ops", (G.DenseOps,), {"unet": M.Ops.unet})
                    M.represent(p, graphs, diffusion, modalities, s, ops)
                else:
                    h, noise = [M.Ops.project(p, m, torch.arange(len(p["item_id_embedding.weight"]))) for m in modalities], torch.tensor(a["noise.steps"]).double()
                    M.reverse(p, h, s, torch.tensor(a["noise.start"]).double(), lambda t: noise[t - 1])
            report(f"{name}: 1 over the least |D|", 1 / golden_mcdrec.Watched.least, 1 / golden_mcdrec.NEAREST)


def check_step(golden):
    """With mrd off the step is FREEDOM's; what detached copies would change."""
    a, metadata = golden("mcdrec_no_diffusion.case")
    as_freedom = {**metadata, "settings": json.dumps(dict(model="FREEDOM", reg_weight=0.05))}
    x, y = G.step_result(a, metadata), G.step_result(a, as_freedom)
    report("mrd off: differences from FREEDOM's step", max((x[n] - y[n]).abs().max().item() for n in y), 0)
    data = small_data(np.random.default_rng(3))
    s = M.settings(model="MCDRec", train_batch_size=64, timesteps=20)
    f = published.Published(data, s, compile="off")
    d = f.draw_diffusion(None)
    T, half = s.timesteps, data.I // 2 + 1
    report("draws: all items, mirrored steps, masks", (d.items.tolist() != list(range(data.I))) + (d.t[half:] != T - 1 - d.t[:data.I - half]).sum().item() +
           float(abs(d.mask.double().mean() - 0.9) > 0.01), 0)


# -------------------------------------------------------------------------------------------------------------- planted mistakes

def planted():
    """name -> (case, patch)"""
    on, plain, image, represent = mock.patch.object, unet.Plain, unet.image, M.represent
    simplified = unet.simplified

    def with_unet(change):
        return lambda: on(G.DenseOps, "unet", staticmethod(change), create=True)

    def stacked(order):
        def wrong(e_t, h):
            x = image(e_t, h)
            return x[:, order]
        return lambda: on(unet, "image", wrong)

    def masked_differently(p, e_t, h, t, T, mask, keep):
        return simplified(p, e_t, h, t, T, mask, 1.0)

    def fusing(change):
        def wrong(p, graphs, diffusion, modalities, s, ops):
            return represent(p, graphs, diffusion, modalities, s, type("ops", (ops,), {"unet": staticmethod(lambda *about: change(simplified(*about)))}))
        return lambda: on(M, "represent", wrong)

    def loss_detached(r, *about, losses=M.losses):
        return losses(SimpleNamespace(**{**vars(r), "e_0": r.e_0.detach() if r.e_0 is not None else None}), *about)

    def padded(x, pad, *about, real=F.pad):
        return real(x, (1, 0, 1, 0)) if pad == (0, 1, 0, 1) else real(x, pad, *about)

    def of_time(T, dtype, device=None, real=unet.time_embedding):
        return real(T + 1, dtype, device)[1:]

    def swapped_time(T, dtype, device=None, real=unet.time_embedding):
        return real(T, dtype, device).roll(4, 1)

    case = "mcdrec_unet"
    return {
        "modalities in the other channels": (case, stacked([0, 2, 1])),
        "the image transposed": (case, lambda: on(unet, "image", lambda e, h: image(e, h).transpose(2, 3))),
        "zero rows above and left of a Down": (case, lambda: on(F, "pad", padded)),
        "an eps of 1e-5": (case, lambda: on(unet, "EPS", 1e-5)),
        "an eps of 1e-5, one modality": ("ccdrec_mcdrec_unet", lambda: on(unet, "EPS", 1e-5)),
        "steps from 1": (case, lambda: on(unet, "time_embedding", of_time)),
        "cosines before sines": (case, lambda: on(unet, "time_embedding", swapped_time)),
        "what is kept not divided": (case, with_unet(masked_differently)),
        "no dropout": (case, with_unet(lambda p, e, h, t, T, mask, keep: simplified(p, e, h, t, T))),
        "masks with the pixels in columns": (case, lambda: on(unet, "mask_of", lambda mask, x, keep, real=unet.mask_of: m.transpose(2, 3) if torch.is_tensor(m := real(mask, x, keep)) else m)),
        "the second modality's channel filled by the first": ("ccdrec_mcdrec_unet", lambda: on(unet, "image", lambda e, h: image(e, [h[0], h[0]]))),
        "the skip before the current map": (case, lambda: on(torch, "cat", lambda x, dim=0, real=torch.cat: real(x[::-1], dim) if dim == 1 and x[0].dim() == 4 else real(x, dim))),
        "two values by the general formula with the sample variance": (case, lambda: on(plain, "norm", staticmethod(
            lambda x, g, b, real=plain.norm: real(x, g, b) / (2 ** 0.5 if x[0].numel() == 16 else 1)))),
        "no gradient into the fusion": (case, fusing(lambda x: x.detach())),
        "no gradient into the target": (case, lambda: on(M, "losses", loss_detached)),
        "no gradient into the target, attention": ("mcdrec", lambda: on(M, "losses", loss_detached)),
        "the mean over the batch's items": ("mcdrec", lambda: on(M, "losses", lambda r, batch, diffusion, s, *more, real=M.losses: real(
            r, batch, diffusion, SimpleNamespace(**{**vars(s), "lambda_dm": s.lambda_dm * len(r.e_0) / (2 * len(batch.users))}), *more))),
        "fused with Hhat": ("mcdrec", lambda: on(M, "represent", lambda p, graphs, diffusion, modalities, s, ops, real=M.represent: real(
            p, graphs, diffusion, modalities, SimpleNamespace(**{**vars(s), "model": "CCDRec", "backbone": "MCDRec", "dma": True}), ops))),
        "w of the item": ("mcdrec_weights", lambda: on(M, "represent", lambda p, graphs, diffusion, modalities, s, ops, real=M.represent: real(
            p, graphs, diffusion, modalities, SimpleNamespace(**{**vars(s), "mu": 1 - s.mu}), ops))),
    }


def check_planted(golden_file, deviation):
    """Each mistake, made in this program, must move some array of its case beyond the tolerances."""
    for name, (case, patch) in planted().items():
        a, metadata = golden_file(f"{case}.case")
        want, _ = golden_file(f"{case}.want")
        s = M.settings(**json.loads(metadata["settings"]))
        unet.time_embedding.cache_clear()
        right = max(deviation(G.step_result(a, metadata), want, s).values())[0]
        with patch():
            got = G.step_result(a, metadata)
        ratio = max(deviation({n: x for n, x in got.items() if n in want}, want, s).values())[0]
        report(f"planted, {case}: {name}: not seen (beyond the tolerance {ratio:.3g} times, {right:.2g} without)", not (ratio > 3 and right < 1), 0)


def check_mcdrec(golden_file, deviation):
    check_forms()
    check_reverse()
    check_near_signs(golden_file)
    check_step(golden_file)
    check_differences(golden_file)
    check_planted(golden_file, deviation)

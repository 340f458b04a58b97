"""Checks of BM3, SLMRec and MMGCN (bm3.py, slmrec.py, mmgcn.py): the published golden numbers, named properties, planted mistakes."""
import contextlib
import math
import os
import tempfile
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

import bm3
import data as D
import golden_results as G
import mirror
import mmgcn
import models as M
import parity
import replay
import slmrec
import train
from checking import apart, gap, report, small_data

# ------------------------------------------------------------------------------------------------- numbers of baselines.md 12

MMGCN_12 = """W_mlp 0 +3.550281e-05 1.191674e-04
b_mlp 1 +2.947584e-06 4.269272e-05
C_1 2 -3.734351e-05 1.594345e-04 C_1 17 -2.954581e-05 4.162506e-05
A_1 3 -2.966866e-07 1.641704e-04 A_1 18 +1.422576e-04 1.399406e-04
a_1 4 +6.822453e-05 1.568032e-04 a_1 19 +1.109392e-04 1.662037e-04
Z_1 5 -1.713906e-05 6.159364e-04 Z_1 20 -1.498535e-04 3.630499e-04
z_1 6 +3.668828e-04 1.170638e-03 z_1 21 +7.769438e-04 7.862469e-04
C_2 7 -9.866416e-05 5.014265e-04 C_2 22 +1.237217e-05 4.957367e-05
A_2 8 -1.996458e-03 1.287110e-03 A_2 23 -1.900634e-04 4.433588e-04
a_2 9 -1.705652e-03 1.718332e-03 a_2 24 -1.233512e-03 2.566718e-03
Z_2 10 +2.981988e-03 8.569197e-03 Z_2 25 -6.180019e-03 1.017371e-02
z_2 11 +5.583985e-03 1.387360e-02 z_2 26 -3.932989e-03 2.925213e-03
C_3 12 +4.421090e-03 9.670844e-03 C_3 27 -1.274113e-02 9.863121e-03
A_3 13 -1.932794e-02 8.686594e-03 A_3 28 +2.523826e-05 6.349980e-03
a_3 14 -1.647898e-02 1.165423e-02 a_3 29 -2.328280e-03 4.279467e-03
Z_3 15 -4.680891e-03 2.383010e-02 Z_3 30 -3.614865e-02 3.095392e-02
z_3 16 -2.264520e-02 2.335554e-02 z_3 31 -1.373783e-03 9.275829e-03"""
SLMREC_12 = ((-2.607044e-03, 3.721853e-02), (-3.764120e-03, 8.280120e-02), (-9.796535e-03, 5.136874e-02), (-5.341819e-03, 1.223422e-02),
             (7.046008e-03, 2.811534e-02), (6.095998e-03, 1.101520e-02), (9.906271e-04, 9.060410e-03), (-1.544553e-02, 9.146362e-03),
             (4.371817e-02, 8.905035e-02), (3.623286e-02, 2.124186e-02), (1.269700e-03, 2.294032e-02), (1.720525e-03, 2.865790e-02),
             (-4.346480e-03, 1.631637e-02), (0, 0), (2.257034e-02, 5.998925e-02), (2.328011e-02, 6.526137e-02), (7.431479e-02, 3.246267e-02),
             (-9.434640e-02, 6.679703e-02), (-4.762540e-02, 4.953016e-02), (0, 0))
BM3_12 = {"user_embedding.weight": (1.818519e-01, 2.035460e-01), "item_id_embedding.weight": (4.967109e-01, 5.405491e-01), "predictor.weight": (-8.394906, 6.352792),
          "predictor.bias": (-5.200725, 4.503105), "image_trs.weight": (9.003451, 10.89089), "image_trs.bias": (1.713153, 3.414715),
          "text_trs.weight": (5.505224e-02, 7.338654e-02), "text_trs.bias": (-1.276182e-01, 1.629844e-01), "image_embedding.weight": (-4.115830e-01, 7.115856e-01),
          "text_embedding.weight": (7.274715e-03, 1.785856e-02)}


def number(n, *shape):
    """Parameter number n in the (in,out) layout of the document."""
    return torch.tensor(0.5 * np.sin(1 + n + 0.9 * np.arange(np.prod(shape)))).reshape(shape)


def linear(name, n, n_in, n_out):
    return {f"{name}.weight": number(n, n_in, n_out).T.contiguous(), f"{name}.bias": number(n + 1, n_out)}


def parameters_12(model, X):
    """-> (p, name -> (sum, norm) of its gradient)"""
    U, I, d = 4, 5, 4
    if model == "MMGCN":
        p, numbers = {"id_embedding": number(100, U + I, d)}, {}
        for line in MMGCN_12.split("\n"):
            words = line.split()
            for at in range(0, len(words), 4):
                numbers[int(words[at + 1])] = tuple(map(float, words[at + 2:at + 4]))
        p.update(linear("image.mlp", 0, 3, 6))
        for m, c, frozen, first in (("image", 6, 101, 2), ("text", 2, 102, 17)):
            p[f"{m}.preference"] = number(frozen, U, c)
            for k, n in ((1, c), (2, d), (3, d)):
                p[f"{m}.conv{k}.weight"] = number(first, n, n)
                p.update(linear(f"{m}.linear{k}", first + 1, n, d) | linear(f"{m}.g{k}", first + 3, n + d, d))
                first += 5
        names = [n for n in p if n not in mmgcn.constants(p)]
        return p, dict(zip(names, (numbers[n] for n in range(32))))
    p = {"user_embedding.weight": number(0, U, d), "item_id_embedding.weight": number(1, I, d)}
    if model == "BM3":
        return p | linear("predictor", 2, d, d) | linear("image_trs", 4, 3, d) | linear("text_trs", 6, 2, d), BM3_12
    p.update(linear("image_dense", 2, 3, d) | linear("text_dense", 4, 2, d) | linear("fuse_user", 6, 3 * d, d) | linear("fuse_item", 8, 3 * d, d))
    for j in range(1, 6):
        p.update(linear(f"ssl.g{j}", 8 + 2 * j, d, d if j < 4 else d // 2))
    return p, dict(zip(p, SLMREC_12))


def setting_12(model, train, X):
    """-> (p, graphs, batch, diffusion, modalities, settings, expected gradients) of section 12"""
    U, I, d = 4, 5, 4
    p, expected = parameters_12(model, X)
    p.update({f"{m}_embedding.weight": x.clone() for m, x in X.items()})
    ij, value = (D.mean_graph if model == "MMGCN" else D.user_item_graph)(train[:, 0], train[:, 1], U, I)
    if model == "MMGCN":                                     # 1/3 in double: its gradients are small differences
        value = 1 / torch.bincount(ij[0]).double()[ij[0]]
    graph = torch.zeros(U + I, U + I, dtype=torch.float64).index_put_(tuple(ij), value.double())
    graphs = SimpleNamespace(user_item=graph, modalities=list(X), features=slmrec.unit_features(p, X))
    users, positives = torch.tensor(train).T
    batch = SimpleNamespace(users=users, positives=positives, negatives=torch.tensor([[3, 4, 3, 0, 4, 1, 2, 1]]))
    kept = lambda rows: (rows[:, None] + 2 * torch.arange(d)) % 3 != 0   # noqa: E731
    diffusion = SimpleNamespace(items=torch.unique(positives), masks={"users": kept(users), **{n: kept(positives) for n in ("items", *X)}})
    own = dict(BM3=dict(n_ui_layers=2), SLMRec=dict(ssl_alpha=0.5, ssl_temp=0.2), MMGCN={})[model]
    s = M.settings(model=model, **own, **({} if model == "SLMRec" else dict(reg_weight=0.1)))
    return p, graphs, batch, diffusion, list(X), s, expected


def check_numbers(train, X):
    expected = {"MMGCN": (0.726190, (.34094, .29881, .33329, .31007, .30841)), "SLMRec": (4.180918, (.41684, .41750, .42061, .42970, .43205)),
                "BM3": (11.492500, (.80489, .36591, .61188, .56421, .41985))}
    for model, (loss, scores) in expected.items():
        p, *rest, s, grads = setting_12(model, train, X)
        assert set(grads) == set(M.trained(p, s)), model
        q = {n: x.clone().requires_grad_(n in grads) for n, x in p.items()}
        out = M.step(q, *rest, s, G.DenseOps)
        report(f"{model} loss", abs(out["loss.total"].item() / loss - 1), 1e-6)
        got = torch.autograd.grad(out["loss.total"], [q[n] for n in grads])
        worst = max((max(abs(g.sum().item() - a), abs(g.norm().item() - b)) / max(g.norm().item(), 1e-6), n) for n, g, (a, b) in zip(grads, got, grads.values()))
        report(f"{model} gradients (sum and norm, relative to the norm), worst {worst[1]}", worst[0], 5e-5)          # f_u of SLMRec is 3e-5 off: eight rows that nearly cancel, in float32
        H_u, H_i = M.final_tables(q, rest[0], s, ops=G.DenseOps)
        score = H_u[0] @ H_i.T
        report(f"{model} scores", ((torch.sigmoid(score) if model == "SLMRec" else score) - torch.tensor(scores)).abs().max().item(), 1e-5)


# ---------------------------------------------------------------------------------------------------------------- the forms

def small_forms(data, model, **setting):
    with mock.patch.object(mmgcn, "MAPPED_ABOVE", 16):       # of small_data's modalities one is mapped, the other not
        return {name: form(data, M.settings(**{**dict(model=model, train_batch_size=16, embedding_size=16, mmgcn_latent=12), **setting}), compile="off")
                for name, form in train.FORMS.items()}


def check_forms():
    for model, setting, steps in (("BM3", {}, 24), ("BM3", dict(n_ui_layers=2, train_features=False, use_mg=True), 12), ("SLMRec", dict(ssl_alpha=0.5), 24),
                                  ("SLMRec", dict(n_ui_layers=1, weight_decay=0.0), 12), ("MMGCN", dict(reg_weight=0.1), 24), ("MMGCN", dict(n_neg=2), 12)):
        rng = np.random.default_rng(7)
        data, label, B = small_data(rng), f"{model} {setting or ''}", 16
        forms = small_forms(data, model, **setting)
        losses = {name: [] for name in forms}
        t = torch.as_tensor
        for j in range(steps):
            rows = rng.integers(0, len(data.train_u), B)
            batch = SimpleNamespace(users=t(data.train_u[rows]), positives=t(data.train_i[rows]), negatives=t(rng.integers(0, data.I, (forms["tuned"].s.n_neg, B))),
                                    curricular=None, frozen=None)
            factors = mirror.passes(j, forms["tuned"].s)
            for factor in factors:
                masks = forms["published"].draw_masks(batch) if model == "BM3" else None
                for name, f in forms.items():
                    d = SimpleNamespace(items=f.projected_items(batch), masks=masks) if model == "BM3" else f.draw_diffusion(batch)
                    losses[name].append(f.update(batch, d, None, factor).item())
        for f in forms.values():
            f.after_epoch()
        for name in ("tuned", "tuned-rows"):
            report(f"{label}: {name} against published, losses of {len(losses[name])} steps", gap(losses["published"], losses[name]), 2e-6 * abs(losses[name][0]))
            report(f"{label}: {name} against published, share of parameters apart", apart(forms["published"], forms[name], steps), 1e-3)
        own = [n for n in forms["tuned"].p if n not in M.trained(forms["tuned"].p, forms["tuned"].s)]
        fresh = small_forms(data, model, **setting)["tuned"].p
        report(f"{label}: constants that have moved", sum(not torch.equal(forms[f].p[n], fresh[n]) for f in forms for n in own), 0)
        forms["published"].p = forms["tuned"].p
        for split in ("valid", "test"):
            x, y = forms["published"].evaluate(split), forms["tuned"].evaluate(split)
            report(f"{label}: metrics on {split}", max(abs(x[n] - y[n]) for n in x), 1e-9)
        for name, f in small_forms(data, model, **setting).items():       # whole epochs, with the form's own draws and a short last batch
            f.epoch(0)
            means = [np.mean(f.epoch(e)) for e in range(1, 4)]
            report(f"{label}: {name}, the loss does not fall", not means[2] < means[0], 0)


# --------------------------------------------------------------------------------------------------------------- the judge

def check_parity(Recorded):
    """Records that the form published writes of these models: right ones agree, planted faults and wrong programs are reported. Recorded: check_parity.py."""
    data = small_data(np.random.default_rng(3))

    def replayed(run):
        return replay.Replay(run, data, torch.float64).all()

    def recorded(folder, model, setting, patches=contextlib.nullcontext, epochs=3):
        with mock.patch.object(mmgcn, "MAPPED_ABOVE", 16):
            form = Recorded(data, M.settings(**{**dict(model=model, train_batch_size=64, embedding_size=8, mmgcn_latent=6), **setting}), compile="off")
        with patches(form) if patches is not contextlib.nullcontext else patches():
            form.record(os.path.join(folder, "run.safetensors"), epochs)
        return replay.Run(os.path.join(folder, "run.safetensors"))

    with tempfile.TemporaryDirectory() as folder:
        for model, setting in (("BM3", {}), ("BM3", dict(use_mg=True, n_ui_layers=2, dropout=0.3, embedding_size=20)), ("BM3", dict(train_features=False)),
                               ("SLMRec", dict(ssl_alpha=0.5)), ("SLMRec", dict(use_mg=True, ssl_alpha=0.1, n_ui_layers=2)),
                               ("MMGCN", dict(reg_weight=0.1)), ("MMGCN", dict(use_mg=True, n_neg=2))):
            run, label = recorded(folder, model, setting), f"parity, {model} {setting}"
            done = replayed(run)
            for text in done.wrong[:3]:
                print(f"  said: {text}")
            report(f"{label}: what is wrong with a right record", len(done.wrong), 0)
            report(f"{label}: masks, mirror batches that were not looked at", (done.seen.masks == 0) * (model == "BM3") + (done.seen.mirrored == 0) * bool(setting.get("use_mg")), 0)
            spoiled = parity.plants(run, data)
            missed = [n for n, x in spoiled.items() if not replayed(x).wrong]
            report(f"{label}: planted faults of {len(spoiled)} not seen: {', '.join(missed) or 'none'}", len(missed), 0)
        for name, model, setting, patches in wrong_programs():
            done = replayed(recorded(folder, model, setting, patches))
            report(f"parity, {model}: a program with {name} is not seen (it is: {done.wrong[0][:90] if done.wrong else ''})", not done.wrong, 0)


def wrong_programs():
    """(name, model, settings, patches(form)): what a program could get wrong in what it draws and how it steps."""
    on = mock.patch.object

    def once(f):                     # the same masks in every pass
        tables = {n: torch.rand(f.data.U if n == "users" else f.data.I, f.s.embedding_size) >= f.s.dropout for n in ("users", "items", *f.modalities)}
        return on(f, "draw_masks", lambda batch: {n: x[batch.users if n == "users" else batch.positives] for n, x in tables.items()})

    def by_row(f):                   # masks of rows of the batch, not of ids
        return on(f, "draw_mask", lambda n, index: torch.rand(len(index), f.s.embedding_size) >= f.s.dropout)

    def one_for_items(f):            # the items' mask for the modalities', too
        draw = f.draw_masks
        return on(f, "draw_masks", lambda batch: (lambda x: {n: x["users" if n == "users" else "items"] for n in x})(draw(batch)))

    def keeps(f):                    # rho of the elements kept
        draw = f.draw_mask
        return on(f, "draw_mask", lambda *a: ~draw(*a))

    def moving(f):                   # a constant table is stepped
        optimise, ID = f.optimise, f.p["id_embedding"]
        return on(f, "optimise", lambda *a: (optimise(*a), ID.mul_(1.001)))

    def no_decay(f):
        f.optimizer.param_groups[0]["weight_decay"] = 0.0
        return contextlib.nullcontext()

    return (("masks that stay", "BM3", {}, once), ("masks by row of the batch", "BM3", {}, by_row), ("one mask for items and modalities", "BM3", {}, one_for_items),
            ("rho kept instead of dropped", "BM3", dict(dropout=0.3), keeps), ("a table of nodes that moves", "MMGCN", {}, moving),
            ("no weight decay", "SLMRec", {}, no_decay))


# ------------------------------------------------------------------------------------------------------- properties, mistakes

def check_differences(golden_file):
    """float64 gradients against central differences: every element of every parameter."""
    for name in ("bm3", "bm3_three_modalities", "bm3_two_words", "bm3_blank_mask", "slmrec", "slmrec_zero_features", "mmgcn", "mmgcn_two_negatives", "mmgcn_three_modalities"):
        arrays, metadata = golden_file(f"{name}.case")
        grads = G.step_result(arrays, metadata)
        p, *rest = G.arguments(arrays, metadata)
        s, worst, n = rest[-1], 0.0, 0
        right = bm3.target
        if s.model == "BM3":                             # constants of the loss stay what they are while parameters move
            kept = []
            with mock.patch.object(bm3, "target", lambda *a: (kept.append(right(*a)), kept[-1])[1]):
                M.step(p, *rest, G.DenseOps)
        with torch.no_grad():
            for k in M.trained(p, s):
                flat, g = p[k].view(-1), grads[f"grad.{k}"].view(-1)
                for j in range(len(flat)):
                    x, h, f = flat[j].item(), 1e-6, []
                    for y in (x + h, x - h):
                        flat[j] = y
                        if s.model == "BM3":
                            again = iter(kept)
                            with mock.patch.object(bm3, "target", lambda *a: next(again)):
                                f.append(M.step(p, *rest, G.DenseOps)["loss.total"].item())
                        else:
                            f.append(M.step(p, *rest, G.DenseOps)["loss.total"].item())
                    flat[j] = x
                    worst, n = max(worst, abs((f[0] - f[1]) / (2 * h) - g[j].item())), n + 1
        largest = max(g.abs().max().item() for k, g in grads.items() if k.startswith("grad."))
        report(f"central differences, {name}, {n} elements, off by", worst / largest, 1e-7)


def check_properties(golden_file):
    g = torch.Generator().manual_seed(5)
    mask = torch.rand(7, 20, generator=g) < 0.5
    words = bm3.packed(mask, torch.ones(7, 12, dtype=torch.bool))
    report("bm3: words of masks, packed and unpacked", int(not torch.equal(bm3.unpacked(words, 20), mask)) + int(words.shape != (7, 2)), 0)
    report("bm3: bit e % 16 of word e // 16", (bm3.packed(torch.eye(20, dtype=torch.bool)) != torch.tensor([[1 << e, 0] if e < 16 else [0, 1 << e - 16] for e in range(20)])).sum().item(), 0)
    x, y = torch.randn(5, 6, generator=g, dtype=torch.float64), torch.randn(5, 6, generator=g, dtype=torch.float64)
    report("bm3: a cosine of targets over the share that is kept", (bm3.cosine(x, y) - bm3.cosine(x, y / 0.3)).abs().max().item(), 1e-15)
    report("bm3: a cosine with nothing", bm3.cosine(x, 0 * y).abs().max().item(), 0)
    S = x @ y.T / 0.2
    report("slmrec: nce against cross entropy", abs((slmrec.nce(x, y, 0.2) - torch.nn.functional.cross_entropy(S, torch.arange(5))).item()), 1e-14)
    for name in ("slmrec", "slmrec_defaults"):
        want, _ = golden_file(f"{name}.want")
        report(f"{name}: gradients of the biases that shift a row of logits", max(float(np.abs(want[f"grad.ssl.{b}.bias"] / want[f"mass.grad.ssl.{b}.bias"]).max()) for b in ("g2", "g5")), 1e-14)
    a, metadata = golden_file("mmgcn.case")
    a["param.id_embedding"] = a["param.id_embedding"].copy()
    steps = [G.step_result(a, {**metadata, "settings": metadata["settings"].replace('"reg_weight": 0.1', f'"reg_weight": {x}')}) for x in (0.1, 0.7)]
    report("mmgcn: parameters that reg_weight moves", sum(not torch.equal(x, steps[1][n]) for n, x in steps[0].items() if n.startswith("new.")), 0)
    report("mmgcn: a loss that does not see it", int(steps[0]["loss.reg"] == steps[1]["loss.reg"]), 0)
    sizes, features = (19445, 7050), {"image": torch.zeros(7050, 4096), "text": torch.zeros(7050, 384)}
    for model, want in (("BM3", 33570688), ("SLMRec", 2028032 - 4160), ("MMGCN", 1418240)):      # of SLMRec without the head that nothing reads
        s = M.settings(model=model)
        p = M.initial(sizes, features, s, torch.Generator().manual_seed(1))
        report(f"{model}: values trained of Baby, off by", abs(sum(p[n].numel() for n in M.trained(p, s)) - want), 0)
        if model == "MMGCN":
            report("MMGCN: constant values of Baby, off by", abs(sum(x.numel() for n, x in p.items() if n == "id_embedding" or n.endswith("preference")) - 14140480), 0)


def planted():
    """name -> (case, patch)"""
    on = mock.patch.object
    target, reg, cosine, propagated, unpacked = bm3.target, bm3.regulariser, bm3.cosine, bm3.propagated, bm3.unpacked
    nce, contrasts, unit, adam = slmrec.nce, slmrec.contrasts, slmrec.unit_features, M.adam
    start, constant_reg, leaky, messages = mmgcn.start, mmgcn.constant_reg, torch.nn.functional.leaky_relu, M.Ops.messages.__func__
    norm = torch.linalg.vector_norm

    def once(p, graphs, s, ops):
        users, items = propagated(p, graphs, s, ops)
        return users, items - p["item_id_embedding.weight"]

    def unlike(r, batch):
        x, y, z = contrasts(r, batch)
        return x, y, (slmrec.mapped(r.p, "ssl.g4", slmrec.mapped(r.p, "ssl.g3", r.H[0].index_select(0, r.U + batch.positives))), z[1])

    def unnormalised(r, batch):
        p, H, i = r.p, r.H, r.U + batch.positives
        return [tuple(r.ops.map_rows(H, rows, p[f"{n}.weight"], p[f"{n}.bias"]) for n, rows in (("fuse_user", batch.users), ("fuse_item", i))), *contrasts(r, batch)[1:]]

    def rows_of_length_1(r, batch):
        main, *others = contrasts(r, batch)
        return [main, *((torch.nn.functional.normalize(x, dim=1), torch.nn.functional.normalize(y, dim=1)) for x, y in others)]

    def decoupled(theta, g, m, v, t, lr, weight_decay=0.0, **more):
        theta, m, v = adam(theta, g, m, v, t, lr, **more)
        return theta * (1 - lr * weight_decay), m, v

    def transposed(cls, graphs, m, k, x, C):
        return graphs.user_item.T @ (x @ C)

    def own_row(cls, graphs, m, k, x, C):
        return messages(cls, graphs, m, k, x, C) + x @ C

    mean_of_rows = lambda r, batch: (r.p["id_embedding"][torch.cat([batch.users, len(r.users) + batch.positives, len(r.users) + batch.negatives.flatten()])] ** 2).mean()   # noqa: E731
    return {
        "Q once": ("bm3", lambda: on(bm3, "propagated", once)),
        "targets with gradients": ("bm3", lambda: on(bm3, "target", lambda t, i, m: t.index_select(0, i) * m)),
        "targets unmasked": ("bm3", lambda: on(bm3, "target", lambda t, i, m: target(t, i, None))),
        "masks from the high bit": ("bm3", lambda: on(bm3, "unpacked", lambda w, d: unpacked(w, 16).flip(1)[:, :d])),
        "words in the other order": ("bm3_two_words", lambda: on(bm3, "unpacked", lambda w, d: unpacked(w.flip(1), d))),
        "a regulariser of the batch's rows": ("bm3", lambda: on(bm3, "regulariser", lambda r, b, tap: (norm(r.users[b.users]) + norm(r.items[b.positives])) / len(b.users))),
        "a regulariser over users and items": ("bm3_moments", lambda: on(bm3, "regulariser", lambda r, b, tap: reg(r, b, tap) * len(r.items) / (len(r.items) + len(r.users)))),
        "a regulariser of squares": ("bm3", lambda: on(bm3, "regulariser", lambda r, b, tap: ((r.users ** 2).sum() + (r.items ** 2).sum()) / len(r.items))),
        "dot products for cosines": ("bm3", lambda: on(bm3, "cosine", lambda x, y, tap=None: (x * y).sum(1))),
        "a cosine whose length has no gradient": ("bm3_three_modalities", lambda: on(bm3, "cosine", lambda x, y, tap=None: (x * y).sum(1) / (norm(x, dim=1).detach() * norm(y, dim=1).clamp(min=1e-8)))),
        "raw features of any length": ("slmrec", lambda: on(slmrec, "unit_features", lambda p, ms: {m: p[f"{m}_embedding.weight"] for m in ms})),
        "the modalities in the other order": ("slmrec", lambda: on(slmrec, "unit_features", lambda p, ms: (ms.reverse(), unit(p, ms))[1])),
        "both directions": ("slmrec", lambda: on(slmrec, "nce", lambda X, Y, t, tap=None: (nce(X, Y, t) + nce(Y, X, t)) / 2)),
        "the partner not among the others": ("slmrec_moments", lambda: on(slmrec, "nce", lambda X, Y, t, tap=None: (torch.logsumexp((X @ Y.T / t).masked_fill(torch.eye(len(X)).bool(), -math.inf), 1) - (X * Y).sum(1) / t).mean())),
        "x_3 not of x_1": ("slmrec", lambda: on(slmrec, "contrasts", unlike)),
        "the main contrast unnormalised": ("slmrec", lambda: on(slmrec, "contrasts", unnormalised)),
        "the other contrasts normalised": ("slmrec_zero_features", lambda: on(slmrec, "contrasts", rows_of_length_1)),
        "no weight decay": ("slmrec_moments", lambda: on(M, "adam", lambda *a, weight_decay=0.0: adam(*a))),
        "weight decay beside Adam": ("slmrec_moments", lambda: on(M, "adam", decoupled)),
        "weight decay mirrored": ("slmrec_mg_second", lambda: on(M, "adam", lambda *a, weight_decay=0.0: adam(*a, weight_decay=-weight_decay))),
        "M transposed": ("mmgcn", lambda: on(M.Ops, "messages", classmethod(transposed))),
        "self loops": ("mmgcn", lambda: on(M.Ops, "messages", classmethod(own_row))),
        "C transposed": ("mmgcn_one_modality", lambda: on(M.Ops, "messages", classmethod(lambda cls, g, m, k, x, C: messages(cls, g, m, k, x, C.T)))),
        "x_1 of any length": ("mmgcn_one_modality", lambda: on(mmgcn.F, "normalize", lambda x, **more: x)),
        "a slope of 0.2": ("mmgcn", lambda: on(mmgcn.F, "leaky_relu", lambda x: leaky(x, 0.2))),
        "a table of nodes in one layer alone": ("mmgcn", lambda: on(mmgcn, "branch", branch_with_one_table)),
        "y before h": ("mmgcn_three_modalities", lambda: on(mmgcn, "branch", branch_in_other_order)),
        "the regulariser by place": ("mmgcn_two_negatives", lambda: on(mmgcn, "constant_reg", mean_of_rows)),
        "no preferences in the regulariser": ("mmgcn", lambda: on(mmgcn, "constant_reg", lambda r, b: constant_reg(SimpleNamespace(**{**vars(r), "modalities": []}), b))),
        "text for visual preferences": ("mmgcn_one_modality", lambda: on(mmgcn, "VISUAL", ("text",))),
    }


branch = mmgcn.branch


def branch_with_one_table(p, graphs, m, ops):
    calls = []

    class Linear(dict):
        def __getitem__(self, n):
            x = dict.__getitem__(self, n)
            return x if n != "id_embedding" or (calls.append(n), len(calls) == 3)[1] else 0 * x
    return branch(Linear(p), graphs, m, ops)


def branch_in_other_order(p, graphs, m, ops):
    cat = torch.cat
    with mock.patch.object(mmgcn.torch, "cat", lambda x, dim=0: cat(x[::-1], dim) if dim == 1 and len(x) == 2 and x[0].shape == x[1].shape else cat(x, dim)):
        return branch(p, graphs, m, ops)


def check_planted(golden_file, deviation):
    """Each mistake, made in this program, must move some array of its case beyond the tolerances."""
    for name, (case, patch) in planted().items():
        a, metadata = golden_file(f"{case}.case")
        want, _ = golden_file(f"{case}.want")
        s = M.settings(**G.json.loads(metadata["settings"]))
        right = max(deviation(G.step_result(a, metadata), want, s).values())[0]
        with patch():
            got = G.step_result(a, metadata)
        ratio = max(deviation({n: x for n, x in got.items() if n in want}, want, s).values())[0]
        report(f"planted, {case}: {name}: not seen (beyond the tolerance {ratio:.3g} times, {right:.2g} without)", not (ratio > 3 and right < 1), 0)


def check_others(golden_file, deviation):
    check_properties(golden_file)
    check_differences(golden_file)
    check_planted(golden_file, deviation)
    check_forms()

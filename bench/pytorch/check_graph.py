"""Check of the step recorded as a CUDA graph (graph_step.py) on the CPU."""
from types import SimpleNamespace

import numpy as np
import torch

import data as D
import graph_step
import models as M
import train
from checking import apart, gap, report, small_data, worst


def stand_in(form, fails_at=None):
    """A GraphStep that needs no GPU. Its graph is a step done again on the same static tensors, which like a recorded one writes the gradients where
    they were when it was recorded; `lost` counts the replays at which they are elsewhere by now. The capture number `fails_at` fails, at 0.5 already the step
    before the first one; None: none does."""
    class Replayed:
        def __init__(self, owner, static):
            self.owner, self.static, self.loss = owner, static, torch.zeros(())
            self.parameters = owner.form.optimizer.param_groups[0]["params"]
            self.at = [x.grad.data_ptr() for x in self.parameters]

        def replay(self):
            current = [x.grad for x in self.parameters]
            there = [g is not None and g.data_ptr() == at for g, at in zip(current, self.at)]
            self.owner.lost += not all(there)
            for x, ok in zip(self.parameters, there):
                x.grad = x.grad if ok else torch.zeros_like(x)
            self.loss.copy_(self.owner.step(self.static))
            self.owner.replays += 1
            for x, g in zip(self.parameters, current):
                x.grad = g

    class StandIn(graph_step.GraphStep):
        lost = replays = captures = 0

        def aside(self, static):
            if fails_at == 0.5:
                raise RuntimeError("planted")
            return self.step(static)

        def record(self, static):
            self.captures += 1
            if self.captures == fails_at:
                raise RuntimeError("planted")
            graph = Replayed(self, static)
            return graph, static, graph.loss

        def draw(self, items):
            return self.given

    return StandIn(form)


def check_graph_step():
    """Whole epochs in which full batches replay a recorded step and the short last one does not, against the forms without a graph."""
    d, T, B = 16, 6, 48
    for model, setting in (("BPR", {}), ("LightGCN", {}), ("FREEDOM", dict(reg_weight=0.05)), ("FREEDOM", dict(reg_weight=0.0)),
                           ("CCDRec", {}), ("CCDRec", dict(train_features=False)), ("LATTICE", dict(reg_weight=0.05)), ("CCDRec", dict(backbone="LATTICE")),
                           ("BM3", {}), ("SLMRec", {}), ("MMGCN", {})):
        rng = np.random.default_rng(11)
        data = small_data(rng)
        s = lambda: M.settings(model=model, train_batch_size=B, embedding_size=d, timesteps=T, **setting)   # noqa: E731
        forms = {name: form(data, s(), compile="off") for name, form in train.FORMS.items()}
        for name, fails_at in (("graph", None), ("no first step", 0.5), ("no capture", 1), ("no second capture", 2)):
            forms[name] = train.Tuned(data, s(), compile="off")
            forms[name].graph = stand_in(forms[name], fails_at)
        stands = [f.graph for f in forms.values() if getattr(f, "graph", None)]
        losses, N, E, steps = {name: [] for name in forms}, data.U + data.I, len(data.train_u), 0
        t = lambda a: torch.as_tensor(a)   # noqa: E731
        # negatives of the epochs: random ones alone, of a pool, the model's own (chosen in the step: no graph), of a pool again
        for stage in (None, 0, "own", 0):
            latent = forms["tuned"].graphs.latent is not None
            for f in forms.values() if latent else ():
                f.graphs.latent.built = None       # made in the epoch's first batch, eagerly
            if M.prunes(forms["tuned"].s):
                keep = np.sort(rng.choice(len(data.pair_u), len(data.pair_u) // 2, replace=False))
                graph = D.user_item_graph(data.pair_u[keep], data.pair_i[keep], data.U, data.I)
                for f in forms.values():
                    if getattr(f, "graph", None):
                        f.graph.set_graph(D.csr(*graph, N, N))
                    else:
                        f.graphs.user_item = f.coo(*graph, N) if f.name == "published" else D.csr(*graph, N, N)
            order = rng.permutation(E)
            for b in range(0, E, B):
                rows = order[b:b + B]
                users, positives, negatives = t(data.train_u[rows]), t(data.train_i[rows]), t(rng.integers(0, data.I, (1, len(rows))))
                curricular = t(rng.integers(0, data.I, len(rows)))
                t_of, noise_of = t(rng.integers(0, T, data.I)), t(rng.standard_normal((data.I, d)).astype(np.float32))
                mask_of = t(rng.standard_normal((data.U, d)).astype(np.float32)) if M.has_masks(forms["tuned"].s) else None
                for x in stands:
                    x.given = t_of, noise_of
                for name, f in forms.items():
                    def draw(batch, f=f):
                        if M.has_masks(f.s):           # of whole tables, in each form
                            of = {"users": (data.U, batch.users), **{n: (data.I, batch.positives) for n in ("items", *f.modalities)}}
                            return SimpleNamespace(items=f.projected_items(batch), masks={n: f.table_mask(*x) for n, x in of.items()})
                        if not M.needs_projection(f.s):
                            return None
                        items, count = torch.unique(torch.cat([batch.positives, batch.negatives.flatten()]), return_counts=True)
                        return SimpleNamespace(items=items, count=count, t=t_of[items], noise=noise_of[items])
                    f.draw_diffusion, f.table_mask = draw, lambda n, index: (noise_of if n == data.I else mask_of)[index] > 0
                    batch = SimpleNamespace(users=users, positives=positives, negatives=negatives, curricular=curricular if stage == 0 else None, frozen=None)
                    losses[name].append(float(f.run_batch(batch, (lambda items: curricular) if stage == "own" and not M.own(f.s) else None)))
                steps += 1
            for f in forms.values():
                f.after_epoch()
        label, graph = f"graph step, {model} {setting or ''}", forms["graph"].graph
        full = E // B
        report(f"{label}: replays missing", abs(graph.replays + graph.captures - (4 if M.own(graph.form.s) else 3) * (full - latent)) + (E % B == 0), 0)
        report(f"{label}: replays that write elsewhere", sum(x.lost for x in stands), 0)
        report(f"{label}: steps miscounted", sum(f.steps != steps for f in forms.values()), 0)
        far, name = worst((gap(losses["published"], losses[name]), name) for name in list(forms)[1:])
        report(f"{label}: losses of {steps} steps against published, worst of {len(forms) - 1}: {name}", far, 1e-6 * max(1, losses["published"][0]))
        far, name = worst((apart(forms["published"], forms[name], steps), name) for name in list(forms)[1:])
        report(f"{label}: share of parameters apart from published, worst: {name}", far, 1e-3)

"""A training step of the tuned form as one CUDA graph."""
from types import SimpleNamespace

import torch

import models as M


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
    if M.diffuses(s):
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

"""A training step of the tuned form as one CUDA graph."""
from types import SimpleNamespace

import torch

import models as M


class GraphStep:
    """The whole step (draws of t and noise, forward, backward, Adam) captured once and replayed. Shapes are fixed: every occurrence of an
    item is a row; all rows of an item share its t and noise, so they are equal, and each brings 1/m of the fusion and of its gradient."""

    def __init__(self, form):
        self.form, self.captured, self.failed = form, None, False
        self.left = False          # the gradients are those of a step here
        self.A = None

    def set_graph(self, A):
        if self.A is None:
            self.A = self.form.graphs.user_item = A
            return
        self.A.crow_indices().copy_(A.crow_indices())
        self.A.col_indices().copy_(A.col_indices())
        self.A.values().copy_(A.values())

    def draw(self, items):
        """(I) steps and (I,d) noise, valid where an item is among `items`."""
        f = self.form
        t_of = torch.zeros(f.data.I, dtype=torch.int64, device=items.device)
        t_of[items] = f.draw_t(len(items))     # of equal items, any one's step serves
        return t_of, f.noise(f.data.I)

    def step(self, batch):
        f = self.form
        diffusion = repeated_rows(f, batch, self.draw)
        for x in f.optimizer.param_groups[0]["params"]:
            if x.grad is None:
                x.grad = torch.zeros_like(x)
            else:
                x.grad.zero_()
        ops = repeated_ops(f.ops, diffusion)
        r = M.represent(f.p, f.graphs, diffusion, f.modalities, f.s, ops)
        loss = f.loss(r, batch, diffusion)
        loss.backward()
        for n in f.tables if diffusion else ():
            f.p[n].grad.index_add_(0, diffusion.items, f.gathered[n].grad)
        f.gathered.clear()
        f.optimizer.step()
        return loss.detach()

    def run(self, batch):
        """-> loss of the step, or None where it was not taken because no step can be captured (a note says why)."""
        f = self.form
        if self.failed:
            return None
        has = batch.curricular is not None
        if self.captured is None or self.captured[0] != has:
            return self.capture(batch, has)
        _, graph, static, loss = self.captured
        for name in ("users", "positives", "negatives") + (("curricular",) if has else ()):
            getattr(static, name).copy_(getattr(batch, name))
        graph.replay()
        f.steps += 1
        self.left = True
        return loss.clone()

    def capture(self, batch, has):
        """Runs this batch eagerly (a real step, which also makes Adam's state), then captures the next one unexecuted. -> loss, or None where the
        real step failed already. A capture that fails after it leaves a batch that is trained: its loss is returned, the next ones go the eager way."""
        f = self.form
        static = SimpleNamespace(users=batch.users.clone(), positives=batch.positives.clone(), negatives=batch.negatives.clone(),
                                 curricular=batch.curricular.clone() if has else None, frozen=None)
        loss, self.captured, self.left = None, None, True
        try:
            loss = self.aside(static)
            f.steps += 1
            state = f.generator.get_state()
            self.captured = (has, *self.record(static))
        except Exception as e:   # whatever the driver or an operation objects to: the eager step remains
            self.failed = True
            f.notes.append(f"no CUDA graph ({type(e).__name__}: {str(e).splitlines()[0][:100] if str(e) else ''})")
            f.gathered.clear()
            if loss is not None:     # the generator may still wait for the end of the capture: one in the same state, which does not
                f.generator = torch.Generator(device=f.device)
                f.generator.set_state(state)
        return loss

    def before_eager_step(self):
        """Zeros over the gradients that a step here left. In place: a recorded step goes on writing to these very tensors."""
        if self.left:
            for x in self.form.optimizer.param_groups[0]["params"]:
                if x.grad is not None:
                    x.grad.zero_()
            self.form.written, self.left = None, False

    def aside(self, static):
        """A step on a side stream, as PyTorch wants it before a capture."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            loss = self.step(static)
        torch.cuda.current_stream().wait_stream(side)
        return loss

    def record(self, static):
        """-> (graph, static, loss): graph.replay() steps on what `static` holds then and writes `loss`."""
        graph, main = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        graph.register_generator_state(self.form.generator)
        try:
            with torch.cuda.graph(graph):
                loss = self.step(static)
        finally:
            torch.cuda.set_stream(main)      # a capture that fails may leave its own stream as the current one
        return graph, static, loss


def repeated_rows(form, batch, draw):
    """Diffusion of a batch with one row per occurrence. draw(items) -> steps (I) and noise (I,d)."""
    s = form.s
    if M.has_masks(s):
        rows = torch.arange(len(batch.users), device=batch.users.device)
        of = {"users": (form.data.U, batch.users), **{n: (form.data.I, batch.positives) for n in ("items", *form.modalities)}}
        return SimpleNamespace(items=batch.positives, at=rows, share=None, masks={n: form.table_mask(*x) for n, x in of.items()})
    if not M.needs_projection(s):
        return None
    items = torch.cat([batch.positives, batch.negatives.flatten()])
    d = SimpleNamespace(items=items, count=torch.ones_like(items), t=None, noise=None, share=None,
                        at=torch.arange(len(items), device=items.device).view(-1, len(batch.users)))
    if M.diffuses(s):
        t_of, noise_of = draw(items)
        d.t, d.noise = t_of[items], noise_of[items]
        d.share = 1 / torch.zeros(form.data.I, device=items.device).index_add_(0, items, torch.ones(len(items), device=items.device))[items]
    return d


def repeated_ops(base, diffusion):
    class ops(base):
        @staticmethod
        def fuse(Hhat, items, rows, mu):
            return Hhat.index_add(0, items, (mu * diffusion.share)[:, None] * (rows - M.gather(Hhat, items)))
    return ops

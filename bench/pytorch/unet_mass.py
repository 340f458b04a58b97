"""The masses of a golden case with the U-Net: by how much its results may move where every operation is rounded.

Thirty layers and their group norms carry the rounding of each to the result, so the absolute terms of the last one say little. Here every operation
of the network, forward and backward, is off by a random number of standard deviation RATE times its own mass (the same sum with absolute values); the
mass of a result is the standard deviation of what comes of it, over RATE. It is what the tolerances of the manifest multiply.
"""
import torch
import torch.nn.functional as F

import models as M
import unet

RATE, TIMES = 1e-7, 32


def noise(x):
    return RATE * torch.randn(x.shape, dtype=x.dtype)


class Rounded(torch.autograd.Function):
    """f(*args), linear in each argument, its value and its gradients off by their masses."""

    @staticmethod
    def forward(ctx, f, *args):
        ctx.f = f
        ctx.save_for_backward(*args)
        y, mass = f(*args), f(*(x.abs() for x in args))
        return y + noise(y) * mass

    @staticmethod
    def backward(ctx, g):
        def gradients(args, g):
            args = [x.detach().requires_grad_(True) for x in args]
            with torch.enable_grad():
                return torch.autograd.grad(ctx.f(*args), args, g)

        args = ctx.saved_tensors
        return None, *(x + noise(x) * m for x, m in zip(gradients(args, g), gradients([x.abs() for x in args], g.abs())))


class Normed(torch.autograd.Function):
    """Groups (n,8,N) of mean 0 and variance 1, of two values by D (unet.OfTwo)."""

    @staticmethod
    def forward(ctx, x):
        if x.shape[2] == 2:
            D = (x[..., 0] - x[..., 1]) / 2
            D = D + noise(D) * x.abs().mean(2)
            ctx.save_for_backward(D)
            xh = D * (D * D + unet.EPS).rsqrt()
            xh = torch.stack([xh, -xh], 2)
            return xh + noise(xh) * xh.abs()
        m = x.mean(2, keepdim=True)
        r = (x.var(2, correction=0, keepdim=True) + unet.EPS).rsqrt()
        xh = (x - m) * r
        xh = xh + noise(xh) * (x.abs() + x.abs().mean(2, keepdim=True)) * r
        ctx.save_for_backward(xh, r)
        return xh

    @staticmethod
    def backward(ctx, q):
        if len(ctx.saved_tensors) == 1:
            D, = ctx.saved_tensors
            slope = unet.EPS * (D * D + unet.EPS) ** -1.5 / 2
            g = slope * (q[..., 0] - q[..., 1])
            g = g + noise(g) * slope * q.abs().sum(2)
            return torch.stack([g, -g], 2)
        xh, r = ctx.saved_tensors
        mean = lambda x: x.mean(2, keepdim=True)   # noqa: E731
        g = r * (q - mean(q) - xh * mean(q * xh))
        return g + noise(g) * r * (q.abs() + mean(q.abs()) + xh.abs() * mean((q * xh).abs()))


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        y = F.silu(x)
        return y + noise(y) * y.abs()

    @staticmethod
    def backward(ctx, g):
        x, = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * s * (1 + x * (1 - s)) + noise(g) * g.abs() * s * (1 + x.abs() * (1 - s))


class Entering(torch.autograd.Function):
    """The network's answer as it is; the gradient that enters there off by its mass."""

    @staticmethod
    def forward(ctx, x, mass):
        ctx.mass = mass
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g + noise(g) * ctx.mass, None


class Shaken(unet.Plain):
    silu = Silu.apply

    @staticmethod
    def add(a, b):
        return Rounded.apply(torch.add, a, b.expand(a.shape))

    @staticmethod
    def linear(x, w, b):
        return Rounded.apply(F.linear, x, w, b)

    @staticmethod
    def conv(x, w, b, stride=1, padding=0):
        return Rounded.apply(lambda x, w, b: F.conv2d(x, w, b, stride, padding), x, w, b)

    @staticmethod
    def norm(x, gain, bias):
        xh = Normed.apply(x.reshape(len(x), unet.GROUPS, -1)).view(x.shape)
        return Rounded.apply(lambda x, g, b: x * g[:, None, None] + b[:, None, None], xh, gain, bias)


def projected(p, m, items):
    return Shaken.linear(M.gather(p[f"{m}_embedding.weight"], items), p[f"{m}_trs.weight"], p[f"{m}_trs.bias"])


def of_runs(run):
    """name -> mass (as the array) of what run() returns, name -> array, each time with other roundings."""
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    runs = [run() for _ in range(TIMES)]
    torch.random.set_rng_state(state)
    return {n: torch.stack([x[n] for x in runs]).std(0) / RATE for n in runs[0]}


def of_step(p, graphs, batch, diffusion, modalities, s, ops, entering):
    """name -> mass of e0_hat and of the gradients grad.<parameter>. entering (n,d): the mass of the gradient that the network gets."""
    keep, blur = M.noise_levels(s.timesteps, s.noise_schedule, torch.float64, entering.device)

    class shaken(ops):
        project = staticmethod(projected)

        @staticmethod
        def unet(p, e_t, h, t, *about):
            Q = M.gather(p["item_id_embedding.weight"], diffusion.items)
            e_t = Shaken.add(keep[t][:, None] * (Q if s.model == "MCDRec" or s.dma else Q.detach()), blur[t][:, None] * diffusion.noise)
            return Entering.apply(unet.simplified(p, e_t, h, t, *about, f=Shaken), entering)

    def run():
        out, names = M.step(p, graphs, batch, diffusion, modalities, s, shaken), M.trained(p, s)
        grads = torch.autograd.grad(out["loss.total"], [p[n] for n in names], allow_unused=True)
        return {"e0_hat": out["e0_hat"].detach(), **{f"grad.{n}": torch.zeros_like(p[n]) if g is None else g for n, g in zip(names, grads)}}

    return of_runs(run)


@torch.no_grad()
def of_reverse(p, s, projections, start, noise_of_steps):
    """name -> mass of x0.<t> and state.<j>, after j steps: of the whole chain, whose states carry the rounding on."""
    def run():
        out = {}

        def answer(e, t):
            out[f"state.{s.timesteps - 1 - t}"] = e
            out[f"x0.{t + 1}"] = unet.simplified(p, e + noise(e) * e.abs(), projections, t, s.timesteps, f=Shaken)
            return out[f"x0.{t + 1}"]

        out[f"state.{s.timesteps}"] = M.reverse(p, projections, s, start, lambda t: noise_of_steps[t - 1], answer)[3]
        return out

    return of_runs(run)

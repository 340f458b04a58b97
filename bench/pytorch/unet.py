"""MCDRec's estimator (mcdrec.md 3): a U-Net over images of 8 x 8 pixels, in two forms that compute the same function with the same gradients.

Published     torch.nn modules as released: 3x3 convolutions everywhere, queries and keys, three output channels; 137,667 parameters
simplified()  without what only ever meets padding or is not read (3.4): linear maps on 1x1 maps, four taps of the last Down, no queries and keys, one
              output channel, the time projections for the T steps; 100,881 parameters, named `unet.BLOCK.PART` and shaped (out, in*taps) or (n) as in files

An item's image: channel 0 the noised item, 1 the second modality (text), 2 the first one (visual), row-major; with one modality channel 1 is zero.
A mask (n,4272) bool says what dropout keeps of the input of each Res block's second convolution: blocks in the order of the network, of each
(channel, pixel row-major).
"""
import functools
import math
from collections import namedtuple
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

GROUPS, EPS = 8, 1e-6
TIME_IN, TIME = 8, 32
WIDTHS = (8, 16, 16, 16)
SIDE = 8
WORD = 16                              # bits of a word of a mask in files
Layer = namedtuple("Layer", "kind name cin cout side skip pushes at")    # side of the input; skip: popped; at: first element of a Res block's mask


def layers():
    """The layers from the image on, in their order (3.3)."""
    out, stack, at, side, c = [Layer("conv", "stem", 3, 8, SIDE, False, True, None)], [8], 0, SIDE, 8

    def res(name, width, skip):
        nonlocal at, c
        cin = c + (stack.pop() if skip else 0)
        out.append(Layer("res", name, cin, width, side, skip, not skip and name.startswith("down"), at))
        at, c = at + width * side * side, width
        if out[-1].pushes:
            stack.append(width)

    for level, width in enumerate(WIDTHS):
        for b in range(2):
            res(f"down.{level}.{b}", width, False)
        if level < 3:
            out.append(Layer("down", f"down.{level}.down", c, c, side, False, True, None))
            stack.append(c)
            side //= 2
    res("middle.0", 16, False)
    out.append(Layer("attention", "middle.attention", 16, 16, side, False, False, None))
    res("middle.1", 16, False)
    for level in (3, 2, 1, 0):
        for b in range(3):
            res(f"up.{level}.{b}", WIDTHS[level], True)
        if level:
            out.append(Layer("up", f"up.{level}.up", c, c, side, False, False, None))
            side *= 2
    assert not stack and side == SIDE
    return tuple(out)


LAYERS = layers()
MASK = sum(x.cout * x.side ** 2 for x in LAYERS if x.kind == "res")      # elements of an item's mask


def tensors():
    """name (without `unet.`) -> (shape of the simplified form, fan-in of the published one, 0 for a norm)."""
    out = {}

    def linear(name, cin, cout, taps=1, fan=None):
        fan = fan or cin * taps
        out[f"{name}.weight"], out[f"{name}.bias"] = ((cout, cin * taps), fan), ((cout,), fan)

    def norm(name, c):
        out[f"{name}.weight"] = out[f"{name}.bias"] = ((c,), 0)

    linear("time.0", TIME_IN, TIME), linear("time.2", TIME, TIME)
    for x in LAYERS:
        taps = 1 if x.side == 1 else 9
        if x.kind == "res":
            norm(f"{x.name}.norm1", x.cin)
            linear(f"{x.name}.conv1", x.cin, x.cout, taps, 9 * x.cin)
            linear(f"{x.name}.time", TIME, x.cout)
            norm(f"{x.name}.norm2", x.cout)
            linear(f"{x.name}.conv2", x.cout, x.cout, taps, 9 * x.cout)
            if x.cin != x.cout:
                linear(f"{x.name}.shortcut", x.cin, x.cout)
        elif x.kind == "attention":
            norm(f"{x.name}.norm", x.cin)
            linear(f"{x.name}.value", x.cin, x.cin), linear(f"{x.name}.out", x.cin, x.cin)
        else:
            linear(x.name, x.cin, x.cout, 4 if x.kind == "down" and x.side == 2 else 9, 9 * x.cin)
    norm("head.norm", 8)
    linear("head.conv", 8, 1, 9)
    return out


TENSORS = tensors()


def initial(uniform):
    """name -> tensor of a fresh network; uniform(shape, bound) draws."""
    return {f"unet.{n}": uniform(shape, 1 / math.sqrt(fan)) if fan else torch.full(shape, float(n.endswith("weight"))) for n, (shape, fan) in TENSORS.items()}


@functools.lru_cache
def time_embedding(T, dtype, device=None):
    """(T,8): row t of the zero-based step t."""
    f = torch.exp(-torch.arange(4, dtype=torch.float64) * math.log(10000.0) / 3)
    phase = torch.arange(T, dtype=torch.float64)[:, None] * f
    return torch.cat([phase.sin(), phase.cos()], 1).to(dtype=dtype, device=device)


def image(e_t, h):
    """(n,3,8,8); h: one or two modalities (n,64), the visual one first."""
    second = h[1] if len(h) > 1 else torch.zeros_like(e_t)
    return torch.stack([e_t, second, h[0]], 1).view(-1, 3, SIDE, SIDE)


def unpacked(words):
    """(n,4272) bool from the words (n,267) of a file: bit e % 16 of word e / 16."""
    bits = (words.long()[..., None] >> torch.arange(WORD, device=words.device)) & 1
    return bits.flatten(1)[:, :MASK].bool()


def packed(mask):
    """The words (n,267), int32."""
    bits = F.pad(mask.long(), (0, -MASK % WORD)).view(len(mask), -1, WORD)
    return (bits << torch.arange(WORD, device=mask.device)).sum(2).int()


def rounding():
    """Names of the parameters whose gradient is zero in mathematics and rounding in float32 (3.4): where a group of the second norm is one channel, what is
    added to a whole channel cancels in it, and in the last norm likewise. 1,376 values, which Adam moves by the learning rate."""
    of_norm = [f"{x.name}.{part}" for x in LAYERS if x.kind == "res" and x.cout == GROUPS for part in ("conv1.bias", "time.weight", "time.bias")]
    return {f"unet.{n}" for n in [*of_norm, "up.0.2.conv2.bias", "up.0.2.shortcut.bias"]}


def mask_of(mask, x, keep):
    """What the input of a Res block's second convolution is multiplied by, or 1."""
    if mask is None:
        return 1
    return mask[:, x.at:x.at + x.cout * x.side ** 2].view(-1, x.cout, x.side, x.side) / keep


# ------------------------------------------------------------------------------------------------------------ simplified

class OfTwo(torch.autograd.Function):
    """D / sqrt(D^2 + eps), what a group of two values x1, x2 is normalised to, D = (x1 - x2)/2. Its derivative is eps/(D^2 + eps)^(3/2); the general formula cancels."""

    @staticmethod
    def forward(ctx, D):
        ctx.save_for_backward(D)
        return D * (D * D + EPS).rsqrt()

    @staticmethod
    def backward(ctx, g):
        D, = ctx.saved_tensors
        return g * EPS * (D * D + EPS) ** -1.5


class Plain:
    """The arithmetic of the simplified form."""
    silu, add = staticmethod(F.silu), staticmethod(torch.add)
    linear, conv = staticmethod(F.linear), staticmethod(F.conv2d)

    @staticmethod
    def norm(x, gain, bias):
        if x.shape[1] * x.shape[2] * x.shape[3] != 2 * GROUPS:
            return F.group_norm(x, GROUPS, gain, bias, EPS)
        pair = x.view(-1, GROUPS, 2)
        xh = OfTwo.apply((pair[..., 0] - pair[..., 1]) / 2)
        return (torch.stack([xh, -xh], 2).view(-1, 2 * GROUPS) * gain + bias).view(x.shape)


def simplified(p, e_t, h, t, T, mask=None, keep=1.0, f=Plain):
    """xhat (n,64). p: `unet.*`; e_t (n,64), h as in image(), t (n) zero-based or one number, T steps."""
    def conv(name, x, stride=1, padding=1):
        w, b = p[f"unet.{name}.weight"], p[f"unet.{name}.bias"]
        if w.shape[1] == x[0].numel():                   # one pixel comes of it: every value has a weight of its own
            return f.linear(x.flatten(1), w, b)[..., None, None]
        return f.conv(x, w.view(len(w), x.shape[1], 3, 3), b, stride, padding)

    def small(name, x):                                  # at each pixel
        w, b = p[f"unet.{name}.weight"], p[f"unet.{name}.bias"]
        return f.conv(x, w[..., None, None], b)

    def norm(name, x):
        return f.norm(x, p[f"unet.{name}.weight"], p[f"unet.{name}.bias"])

    def linear(name, x):
        return f.linear(x, p[f"unet.{name}.weight"], p[f"unet.{name}.bias"])

    temb = f.silu(linear("time.2", f.silu(linear("time.0", time_embedding(T, e_t.dtype, e_t.device)))))

    def res(x, name, layer):
        a = conv(f"{name}.conv1", f.silu(norm(f"{name}.norm1", x)))
        table = linear(f"{name}.time", temb)
        a = f.add(a, (table[t] if torch.is_tensor(t) else table[t:t + 1])[..., None, None])
        b = conv(f"{name}.conv2", f.silu(norm(f"{name}.norm2", a)) * mask_of(mask, layer, keep))
        return f.add(b, small(f"{name}.shortcut", x) if layer.cin != layer.cout else x)

    x, stack = image(e_t, h), []
    for layer in LAYERS:
        name = layer.name
        if layer.skip:
            x = torch.cat([x, stack.pop()], 1)
        if layer.kind == "res":
            x = res(x, name, layer)
        elif layer.kind == "down":
            x = conv(name, x) if layer.side == 2 else conv(name, F.pad(x, (0, 1, 0, 1)), 2, 0)
        elif layer.kind == "up":
            x = conv(name, F.interpolate(x, scale_factor=2, mode="nearest"))
        elif layer.kind == "attention":
            x = f.add(x, small(f"{name}.out", small(f"{name}.value", norm(f"{name}.norm", x))))
        else:
            x = conv(name, x)
        if layer.pushes:
            stack.append(x)
    return conv("head.conv", f.silu(norm("head.norm", x))).flatten(1)


# ------------------------------------------------------------------------------------------------------------- published

class Res(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, cin, EPS), nn.Conv2d(cin, cout, 3, padding=1)
        self.time = nn.Linear(TIME, cout)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, cout, EPS), nn.Conv2d(cout, cout, 3, padding=1)
        self.shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None

    def forward(self, x, temb, kept):
        a = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(temb))[:, :, None, None]
        return self.conv2(F.silu(self.norm2(a)) * kept) + (x if self.shortcut is None else self.shortcut(x))


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, c, EPS)
        self.query, self.key, self.value, self.out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        n, c, height, width = x.shape
        z = self.norm(x)
        q, k, v = (f(z).view(n, c, height * width) for f in (self.query, self.key, self.value))
        a = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(c), dim=2)           # (n,S,S): a_ij, the sum over j is 1
        return x + self.out((v @ a.transpose(1, 2)).view(n, c, height, width))


class Published(nn.Module):
    """The network as released. Its names are those of the simplified form, but for `query` and `key`."""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME_IN, TIME), nn.SiLU(), nn.Linear(TIME, TIME))
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        level = lambda *blocks: nn.ModuleDict(blocks)   # noqa: E731
        down_of = lambda c: [("down", nn.Conv2d(c, c, 3, stride=2))]   # noqa: E731
        up_of = lambda c: [("up", nn.Conv2d(c, c, 3, padding=1))]   # noqa: E731
        self.down = nn.ModuleList([level(("0", Res(8, 8)), ("1", Res(8, 8)), *down_of(8)), level(("0", Res(8, 16)), ("1", Res(16, 16)), *down_of(16)),
                                   level(("0", Res(16, 16)), ("1", Res(16, 16)), *down_of(16)), level(("0", Res(16, 16)), ("1", Res(16, 16)))])
        self.middle = nn.ModuleDict({"0": Res(16, 16), "attention": Attention(16), "1": Res(16, 16)})
        self.up = nn.ModuleList([level(("0", Res(24, 8)), ("1", Res(16, 8)), ("2", Res(16, 8))),
                                 level(("0", Res(32, 16)), ("1", Res(32, 16)), ("2", Res(24, 16)), *up_of(16)),
                                 level(("0", Res(32, 16)), ("1", Res(32, 16)), ("2", Res(32, 16)), *up_of(16)),
                                 level(("0", Res(32, 16)), ("1", Res(32, 16)), ("2", Res(32, 16)), *up_of(16))])
        self.head = nn.ModuleDict({"norm": nn.GroupNorm(GROUPS, 8, EPS), "conv": nn.Conv2d(8, 3, 3, padding=1)})

    def forward(self, e_t, h, t, T, mask=None, keep=1.0):
        x = image(e_t, h)
        temb = self.time(time_embedding(T, x.dtype, x.device)[t].expand(len(x), -1))
        kept = iter([mask_of(mask, layer, keep) for layer in LAYERS if layer.kind == "res"])
        x = self.stem(x)
        stack = [x]
        for level in self.down:
            for b in "01":
                x = level[b](x, temb, next(kept))
                stack.append(x)
            if "down" in level:
                x = level["down"](F.pad(x, (0, 1, 0, 1)))
                stack.append(x)
        x = self.middle["0"](x, temb, next(kept))
        x = self.middle["1"](self.middle["attention"](x), temb, next(kept))
        for level in reversed(self.up):
            for b in "012":
                x = level[b](torch.cat([x, stack.pop()], 1), temb, next(kept))
            if "up" in level:
                x = level["up"](F.interpolate(x, scale_factor=2, mode="nearest"))
        assert not stack
        return self.head["conv"](F.silu(self.head["norm"](x)))[:, 0].flatten(1)


SHELL = SimpleNamespace(module=None)


def published(p, e_t, h, t, T, mask=None, keep=1.0):
    """The same, of parameters `unet.*` as the published network has them."""
    if SHELL.module is None:
        with torch.device("meta"):
            SHELL.module = Published()
    return torch.func.functional_call(SHELL.module, {n[5:]: x for n, x in p.items() if n.startswith("unet.")}, (e_t, h, t, T, mask, keep))


def live(name, x):
    """Of a tensor of the published network the part (a view) that the simplified form has; None of queries and keys."""
    if name not in TENSORS:
        return None
    x, columns = x[:1] if name.startswith("head.conv") else x, TENSORS[name][0][-1]
    if x.dim() == 4 and x.shape[2] == 3 and columns < 9 * x.shape[1]:        # a 3x3 convolution of which one pixel comes
        return x[:, :, 1:2, 1:2] if columns == x.shape[1] else x[:, :, :2, :2]
    return x


def to_simplified(p):
    """p with the published network's tensors replaced by their live parts."""
    parts = {n: live(n[5:], x) if n.startswith("unet.") else x for n, x in p.items()}
    return {n: x.reshape(TENSORS[n[5:]][0]) if n.startswith("unet.") else x for n, x in parts.items() if x is not None}


def to_published(p, network):
    """p with the tensors of `network`, a Published whose dead values stay and whose live ones are p's."""
    out = {n: x for n, x in p.items() if not n.startswith("unet.")}
    for n, x in network.state_dict().items():
        x = x.detach().clone()
        part = live(n, x)
        if part is not None:
            part.copy_(p[f"unet.{n}"].view(part.shape))
        out[f"unet.{n}"] = x
    return out

"""What the checks share: how a deviation is reported, small data, how far two runs are apart."""
import math

import numpy as np
import torch

import data as D
import unet

failed = []


def report(name, value, limit):
    ok = value <= limit            # a NaN fails
    if not ok:
        failed.append(name)
    print(f"{'ok  ' if ok else 'FAIL'} {name:64s} {value:.3g} (limit {limit:g})")


def small_data(rng, U=70, I=60):   # noqa: E741
    """Random interactions, one item without any, one user with all others; two modalities."""
    member = rng.random((U, I)) < 0.15
    member[:, I - 1], member[0, :I - 1] = False, True
    member[np.arange(U), rng.integers(0, I - 1, U)] = True
    member[1, I - 1] = True           # held out below: the item exists, but not in training
    u, i = np.nonzero(member)
    label = np.where(rng.random(len(u)) < 0.2, rng.integers(1, 3, len(u)), 0)
    label[(u == 0) | (np.concatenate([[True], u[1:] != u[:-1]]))] = 0
    label[i == I - 1] = 1
    features = {m: rng.standard_normal((I, f)).astype(np.float32) for m, f in (("image", 24), ("text", 10))}
    return D.Data(u, i, label, features, "small")


def worst(values):
    """The largest; a NaN, alone or first of a tuple, is larger than all."""
    return max(values, key=lambda x: (lambda y: math.inf if math.isnan(y) else y)(x[0] if isinstance(x, tuple) else x))


def gap(a, b):
    return worst(abs(x - y) for x, y in zip(a, b))


def apart(a, b, steps):
    """Share of the parameters that are far apart after `steps` steps. An element whose gradient is rounding moves by the learning rate in a direction that
    rounding decides; of FREEDOM's biases all are, since their gradients cancel, and without weight decay two of SLMRec's."""
    lr, p, q = a.s.learning_rate, unet.to_simplified(a.p), unet.to_simplified(b.p)
    idle = lambda n: n in unet.rounding() or (n.endswith("bias") if a.s.model == "FREEDOM" else n in ("ssl.g2.bias", "ssl.g5.bias"))   # noqa: E731
    return torch.cat([((p[n] - q[n]).abs() > 0.02 * lr * steps).flatten() for n in p if not idle(n)]).float().mean().item()

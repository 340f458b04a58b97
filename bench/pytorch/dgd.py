"""MCDRec's graph denoising (mcdrec.md 5): which edges an epoch's training graph keeps, and their values, by weights from the last reverse process.

An edge's weight acts through the degrees alone: a high one raises the degrees of its two ends, which lowers how likely and how heavy all their edges
are. `direct` (ours) multiplies probability and value by it. Nothing here has a gradient.

Shapes: E edges, users u (E) and items i (E); P (U,d), X (I,d) the end of the reverse process (before the first one: Q).
"""
import torch
import torch.nn.functional as F

import data as D

LEAST = 1e-7     # of a weight, and what a degree begins with


@torch.no_grad()
def edge_weights(P, X, u, i, tau):
    """a (E) float64: 1 + tau cos(P[u], X[i])"""
    P, X = (F.normalize(x.double(), dim=1, eps=1e-12) for x in (P, X))
    return (1 + tau * (P[u] * X[i]).sum(1)).clamp(min=LEAST)


def degrees(a, u, i, U, I):
    """Weighted degrees (U), (I) of the edges."""
    start = lambda n: torch.full((n,), LEAST, dtype=a.dtype, device=a.device)   # noqa: E731
    return start(U).index_add(0, u, a), start(I).index_add(0, i, a)


def values(a, u, i, U, I, direct=False):
    """1/sqrt(d_u d_i) (E): of all edges the weights of the race for the places, of the kept ones the values of the graph."""
    d_u, d_i = degrees(a, u, i, U, I)
    value = (d_u[u] * d_i[i]).rsqrt()
    return a * value if direct else value


def graph(a, u, i, U, I, direct=False):
    """Symmetric N x N graph of the kept edges, with weights a of theirs."""
    return D.symmetric(u, i, values(a, u, i, U, I, direct).float(), U, I)

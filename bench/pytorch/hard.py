"""Hard negatives beside the random ones (negative_sampling.md 2 and 4 to 6): popularity, DNS and MixGCF.

The choice takes an index, which is never differentiated; the term of the loss is a function of what was chosen, so that candidates and mixing
coefficients can be given. MixGCF stands here as published (6.1): the mixed vectors are made and automatic differentiation does the rest.
The shorter form that the program uses (6.3) is nowhere but in check_hard.py, which holds one against the other.

Shapes: B rows, N candidates a row, L layers of the graph, I items, d width. batch.hard: items (1,B), for MixGCF (L+1,B) the item chosen at each
layer, and alpha (L+1,B), None for the others.
"""
from types import SimpleNamespace

import torch

SAMPLERS = ("none", "popularity", "dns", "mixgcf", "realhns")


def used(s):
    """Whether the objective has a hard negative: with omega 0 none is taken."""
    return s.sampler != "none" and s.omega > 0


# ----------------------------------------------------------------------------------------------------------- the choice

def scores(h_u, tables, candidates):
    """h_u . v of each candidate (B,N) in each of the tables (K,I,d) -> (K,B,N)"""
    return torch.stack([(h_u[:, None] * table[candidates]).sum(2) for table in tables])


@torch.no_grad()
def ranked(h_u, tables, candidates):
    """The candidates of each row, best first, equals in the order they were drawn -> (K,B,N) items. The first is the arg-max."""
    order = torch.sort(scores(h_u, tables, candidates), dim=2, descending=True, stable=True).indices
    return candidates.expand_as(order).gather(2, order)


@torch.no_grad()
def mixed_choice(h_u, layers, positives, candidates, alpha):
    """MixGCF's choice as published: every candidate mixed with the positive at every layer, and of these the nearest to the user -> (L+1,B)"""
    a = alpha[:, :, None, None]
    v_p = torch.stack([v[positives] for v in layers])[:, :, None]                         # (L+1,B,1,d)
    v_m = torch.stack([v[candidates] for v in layers])                                    # (L+1,B,N,d)
    best = (h_u[None, :, None] * (a * v_p + (1 - a) * v_m)).sum(3).argmax(2)
    return candidates.expand(len(layers), *candidates.shape).gather(2, best[..., None])[..., 0]


def popularity(count, power):
    """P(j) ~ f_j^power over the items, f_j interactions of item j in training; an item without any is never drawn."""
    share = torch.where(count > 0, count.double() ** power, 0.0)
    return share / share.sum()


# ---------------------------------------------------------------------------------------------------- the term of the loss

def term(r, batch, h_u, h_p, s, ranking, tap):
    """BPR against the hard negatives, without its weight omega, and the arrays of the result. `ranking` is the model's own BPR (models.losses)."""
    hard = batch.hard
    if s.sampler != "mixgcf":
        h_n = r.items.index_select(0, hard.items[0])
        return ranking(h_u, h_p, h_n), {"h.hard": h_n}
    a = hard.alpha[..., None]
    v_p = torch.stack([tap(v.index_select(0, batch.positives)) for v in r.layers])        # (L+1,B,d)
    v_n = torch.stack([tap(v.index_select(0, n)) for v, n in zip(r.layers, hard.items)])
    h_n = (a * v_p + (1 - a) * v_n).mean(0)               # positive mixing, then the mean over the layers: hop mixing
    gap = (tap(h_u) * h_n).sum(1) - (tap(h_u) * v_p.mean(0)).sum(1)
    return torch.logaddexp(torch.zeros_like(gap), gap).mean(), {"h.hard": h_n}


def given(items, alpha=None):
    return SimpleNamespace(items=items, alpha=alpha)

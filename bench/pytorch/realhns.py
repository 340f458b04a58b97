"""RealHNS on one domain (negative_sampling.md 7.4): a band of each user's ranking, without what is too like the positive.

Once an epoch each user gets candidates, items at random places of a band of his ranking, the same places for all; and a threshold, which the cohesion of
clusters of items bounds and which rises with the epochs. In a step a row's candidates that are more similar to its positive than that are left out,
and one of the best of the others, by the step's own scores, is drawn. Rows whose slot is not active yet, or that have none left, take a uniform negative.

Epochs e count from 1 here, as in the specification. Shapes: U users, I items, N candidates a user, T of them may be drawn, k clusters.
"""
import math

import torch
import torch.nn.functional as F


def band(I, s):
    """The ranks [first, last) that candidates are taken from."""
    return math.floor(s.realhns_p_min * I / 100), math.ceil(s.realhns_p_max * I / 100)


def n_candidates(I, s):
    first, last = band(I, s)
    return min(s.realhns_candidates, last - first)


def n_best(N, s):
    return math.ceil(s.realhns_top * N)


def draw_places(I, s, generator=None, device=None):
    """(N) ranks of the band, ascending: the same for all users."""
    first, last = band(I, s)
    return first + torch.randperm(last - first, generator=generator, device=device)[:n_candidates(I, s)].sort().values


def candidates(score, places):
    """(n,N) items at these places of the rankings by score (n,I), in which an item that may not be taken has -inf: none of these, but -1."""
    top = torch.topk(score, min(int(places[-1]) + 1, score.shape[1]), dim=1)
    return torch.where(top.values > -math.inf, top.indices, -1)[:, places]


def share(e, s):
    """q(e): the share of the rows whose slot is active."""
    return min(1.0, math.ceil((e - s.realhns_start) / 2) / 8) if e > s.realhns_start else 0.0


def threshold(cohesion, e, s):
    """theta(e)"""
    return min(cohesion / 5 * 1.15 ** math.ceil((e - s.realhns_start) / 2), cohesion)


@torch.no_grad()
def cluster(items, initial, generator=None):
    """k-means by cosine of the rows of `items` (I,d), from the items `initial` (k) -> centres (k,d). An empty cluster takes a random item."""
    x = F.normalize(items, dim=1, eps=1e-12)
    centres = x[initial]
    for _ in range(50):
        nearest = (x @ F.normalize(centres, dim=1, eps=1e-12).T).argmax(1)
        count = torch.bincount(nearest, minlength=len(initial))
        mean = torch.zeros_like(centres).index_add_(0, nearest, x) / count.clamp(min=1)[:, None]
        empty = count == 0
        mean[empty] = x[torch.randint(0, len(x), (int(empty.sum()),), generator=generator, device=x.device)]
        shift, centres = (mean - centres).norm(dim=1).sum(), mean
        if shift ** 2 < 1e-4:
            break
    return centres


def cohesion(items, s, generator=None):
    """thetabar: the mean over the clusters of |centre|^2, which is the mean similarity of a cluster's members to it."""
    initial = torch.randperm(len(items), generator=generator, device=items.device)[:s.realhns_clusters]
    return (cluster(items, initial, generator) ** 2).sum(1).mean().item()


def scores(h_u, h_p, rows, listed, theta):
    """(B,N) h_u . h_m of the candidates' rows (B,N,d), -inf for those whose cosine with h_p is above theta and where nothing is listed (B,N) bool. A row
    without a length has cosine 0."""
    unit = lambda x: F.normalize(x, dim=-1, eps=1e-12)   # noqa: E731
    like = (unit(rows) * unit(h_p)[:, None]).sum(2)
    return (rows * h_u[:, None]).sum(2).masked_fill((like > theta) | ~listed, -math.inf)


def draw_rank(score, T, x):
    """(B) ranks below min(T, the number of candidates left), by x (B) uniform in [0,1); 0 where none is."""
    left = (score > -math.inf).sum(1).clamp(max=T)
    return (x * left).long().clamp(max=T - 1)


def at_rank(score, items, T, rank, otherwise):
    """(B) the candidate of that rank among the T best; `otherwise` (B) where none is left."""
    top = torch.topk(score, T, dim=1)
    of = lambda y: y.gather(1, rank[:, None])[:, 0]   # noqa: E731
    return torch.where(of(top.values) > -math.inf, of(items.gather(1, top.indices)), otherwise)

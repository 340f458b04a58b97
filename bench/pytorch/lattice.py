"""LATTICE's item graph (baselines.md 8) as plain functions of given lists of neighbours; gradients by autograd.

The graph is half learned: S = (1 - lambda) lap(sum_m w_m K_m) + lambda sum_m w_m O_m, with K_m the cosine similarities of projected features,
O_m the normalised ones of raw features, w = softmax(theta). Which neighbours a row keeps is a constant; gradients reach theta, W_m, b_m and X_m
through the values that are kept. They do so in the first batch of an epoch alone (8.4): in the others S is what that batch made of its parameters.

Shapes: I items, d width, M modalities, k neighbours a row. A list of neighbours is index (I,k), row i's c-th being item index[i,c]; lists beside
it, value (I,k), hold its numbers. A namespace `latent` has, by the name of a modality and in their order:
    learned  index of K_m                        values  K_m where S is a constant, else None
    frozen   (index, value) of O_m               weight  w (M) where S is a constant, else None
The forms of training keep S otherwise (published.py: dense matrices, as the formulas stand; tuned.py: compressed rows).
"""
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import data as D


def similarities(y, index):
    """K (I,k): cosine of row i and row index[i,c] of y (I,d). A zero row has similarity 0 with all."""
    y = F.normalize(y, dim=1, eps=1e-12)
    return (y[:, None] * y.index_select(0, index.flatten()).view(*index.shape, -1)).sum(2)


def scale(row_sums):
    """s_i = c_i^(-1/2), 0 where c_i <= 0 (8.7)."""
    some = row_sums > 0
    return torch.where(some, torch.where(some, row_sums, torch.ones_like(row_sums)).rsqrt(), torch.zeros_like(row_sums))


def at_columns(s, index):
    """s_j (I,k) of the neighbours j."""
    return s.index_select(0, index.flatten()).view(index.shape)


def frozen_lists(features, k):
    """name -> (index, value) of O_m = lap(knn(X_m)) from the raw features (name -> (I,F)): row sums on both sides, though the lists are not symmetric."""
    return {m: frozen_list(x, D.knn(x, k, self_first=True)) for m, x in features.items()}


@torch.no_grad()
def frozen_list(x, index, block=256):
    y = F.normalize(x, dim=1, eps=1e-12)
    value = torch.cat([(y[rows, None] * y[index[rows]]).sum(2) for rows in torch.arange(len(x), device=x.device).split(block)])
    s = scale(value.sum(1))
    return index, s[:, None] * value * at_columns(s, index)


def all_projected(p, m):
    """y (I,d) of all items"""
    return F.linear(p[f"{m}_embedding.weight"], p[f"{m}_trs.weight"], p[f"{m}_trs.bias"])


@torch.no_grad()
def learned_lists(p, modalities, k):
    """name -> index (I,k): the neighbours in K_m by the parameters as they are."""
    return {m: D.knn(all_projected(p, m), k, self_first=True) for m in modalities}


def item_graph(p, latent, lambda_coeff, projected=None):
    """S in the lists' order: column, value (I,2Mk): the learned lists of all modalities, then the frozen ones. Beside it what it is made of: K_m, w, and
    the projections (I,d) where gradients can reach them (`projected`: already made)."""
    y = {} if latent.values else projected or {m: all_projected(p, m) for m in latent.learned}
    K = latent.values or {m: similarities(y[m], index) for m, index in latent.learned.items()}
    w = latent.weight if latent.values else torch.softmax(p["modal_weight"], 0)
    s = scale(sum(x * K[m].sum(1) for x, m in zip(w, K)))
    value = [(1 - lambda_coeff) * x * s[:, None] * K[m] * at_columns(s, index) for x, (m, index) in zip(w, latent.learned.items())]
    value += [lambda_coeff * x * O for x, (_, O) in zip(w, latent.frozen.values())]
    column = [*latent.learned.values(), *(index for index, _ in latent.frozen.values())]
    return SimpleNamespace(column=torch.cat(column, 1), value=torch.cat(value, 1), scale=s, values=K, weight=w, projection=y)


def product(S, x):
    """S x (I,d)"""
    return (S.value[..., None] * x.index_select(0, S.column.flatten()).view(*S.column.shape, -1)).sum(1)


def as_constant(S, latent):
    """`latent` as the later batches of the epoch have it."""
    return SimpleNamespace(learned=latent.learned, frozen=latent.frozen, values={m: K.detach() for m, K in S.values.items()}, weight=S.weight.detach())


def square_reg(h_u, h_p, h_n, B0):
    """(1/2)(|h_u|^2 + |h_p|^2 + the mean over the negatives of |h_n|^2)/B0. h_n: n_neg times (B,d). B0: the configured batch size, also for fewer rows."""
    square = lambda x: (x * x).sum()   # noqa: E731
    return 0.5 / B0 * (square(h_u) + square(h_p) + sum(map(square, h_n)) / len(h_n))


def learning_rate(s, epoch):
    """Of the zero-based epoch: lr_0 gamma^(e/T), an exponent without steps (2.4). Every model has the setting; with LATTICE gamma is not 1."""
    gamma, T = s.learning_rate_scheduler
    return s.learning_rate * gamma ** (epoch / T)

"""LATTICE's graph in the tuned forms: compressed rows, built once an epoch (lattice.py is what it computes).

S has 2Mk entries a row, so that its rows begin at known places and nothing is merged or sorted; a pair in several lists has several entries. The graph
that an epoch is evaluated with is that of the next epoch's first batch, gradients included: between them no parameter changes. Scaling by s_i and s_j is
on entries, two products with diagonal matrices are not formed.
"""
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import data as D
import lattice


class LatentProduct(torch.autograd.Function):
    """S X with gradients in the entries of S, too: value (I,2Mk) those of pair = (S, its transpose) in CSR."""

    @staticmethod
    def forward(ctx, product, pair, column, value, X):
        ctx.product, ctx.pair = product, pair
        ctx.save_for_backward(column, X)
        return product(pair[0], X)

    @staticmethod
    def backward(ctx, G):
        column, X = ctx.saved_tensors
        G = G.contiguous()
        return None, None, None, dots(G, X, column), ctx.product(ctx.pair[1], G)


def dots(G, X, column, block=1024):
    """G[i] . X[column[i,c]] (I,2Mk), a block of rows at a time"""
    out = torch.empty(column.shape, dtype=X.dtype, device=X.device)
    for b in range(0, len(column), block):
        at = column[b:b + block]
        torch.bmm(X.index_select(0, at.flatten()).view(*at.shape, -1), G[b:b + block, :, None], out=out[b:b + block, :, None])
    return out


def nearest(y, k, block=1024):
    """(I,k): each row itself and its nearest others, in any order"""
    y = F.normalize(y, dim=1, eps=1e-12)
    out = torch.empty(len(y), k, dtype=torch.int64, device=y.device)
    for b in range(0, len(y), block):
        similarity = y[b:b + block] @ y.T
        similarity.diagonal(b).fill_(torch.inf)
        out[b:b + block] = torch.topk(similarity, k, dim=1, sorted=False).indices
    return out


class LatentRows:
    """graphs.latent of the tuned forms. built: the epoch's S as a constant pair, or None; ready: S of the parameters as they are, with its way back, or None
    since they moved."""

    def __init__(self, features, k):
        self.k = min(k, len(next(iter(features.values()))))
        self.frozen = {m: lattice.frozen_list(x, nearest(x, self.k)) for m, x in features.items()}
        self.built = self.ready = self.constant = None
        self.leaves = {}        # raw features that S was made of: name -> a leaf of all rows, whose gradient goes to Adam

    def of(self, p, lambda_coeff, trains_features):
        """S of these parameters (lattice.item_graph) and its CSR pair."""
        if self.ready is None:
            with torch.enable_grad():
                self.leaves = {m: p[f"{m}_embedding.weight"].detach().requires_grad_(trains_features) for m in self.frozen}
                y = {m: F.linear(x, p[f"{m}_trs.weight"], p[f"{m}_trs.bias"]) for m, x in self.leaves.items()}
                learned = {m: nearest(x.detach(), self.k) for m, x in y.items()}
                S = lattice.item_graph(p, SimpleNamespace(learned=learned, frozen=self.frozen, values=None, weight=None), lambda_coeff, y)
            S.pair = csr_pair(S.column, S.value.detach())
            self.ready = S
        return self.ready

    def keep(self, in_place):
        """After a first batch has read it: from now on S is a constant. in_place: a recorded step reads the buffers of the first one."""
        if in_place and self.constant is not None:
            for old, new in zip(self.constant, self.ready.pair):
                for part in ("crow_indices", "col_indices", "values"):
                    getattr(old, part)().copy_(getattr(new, part)())
        else:
            self.constant = self.ready.pair
        self.built, self.ready = self.constant, None


def csr_pair(column, value):
    """(S, S^T) of rows of equal length"""
    I, n = column.shape   # noqa: E741
    row = torch.arange(I, device=column.device).repeat_interleave(n)
    index, value = torch.stack([row, column.flatten()]), value.flatten()
    return D.csr(index, value, I, I), D.csr(*D.transpose(index, value), I, I)

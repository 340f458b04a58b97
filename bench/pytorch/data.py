"""Data folders and graphs, in NumPy and PyTorch alone.

Folder (MMRec's layout): one tab-separated NAME.inter with userID, itemID, x_label (0 training, 1 validation, 2 test) and any number of
NAME_feat.npy, one row per item; a modality is called NAME, and modalities are taken in the order of their names. Ids: ids.py.
Graphs are pairs (index (2,nnz) int64, value (nnz) float32), rows and columns ascending.
"""
import os
import sys
import warnings

import numpy as np
import torch

from ids import mapping, numbered
from mistakes import UserError

EPS = 1e-7   # added to degrees (baselines.md 1.4): keeps degree 0 finite, nothing else


# ---------------------------------------------------------------------------------------------------------------- reading

class Data:
    """U, I; train_u, train_i (E): training rows as in the file; pair_u, pair_i: the distinct pairs, sorted; start (U+1): where a user's
    pairs begin; train_items: items with a training row; held[split] = (users, items) of "valid", "test"; features: name -> (I,F) float32."""

    def __init__(self, users, items, labels, features, name="", n_users=None, n_items=None):
        self.name = name
        self.U, self.I = n_users or int(users.max()) + 1, n_items or int(items.max()) + 1     # over all splits, before any filter
        is_train = labels == 0
        self.train_u, self.train_i = users[is_train], items[is_train]
        key = np.unique(self.train_u * np.int64(self.I) + self.train_i)
        self.key, self.pair_u, self.pair_i = key, key // self.I, key % self.I
        self.start = np.concatenate([[0], np.cumsum(np.bincount(self.pair_u, minlength=self.U))])
        self.train_items = np.unique(self.pair_i)
        has_train = np.diff(self.start) > 0
        self.held = {}
        for split, label in (("valid", 1), ("test", 2)):
            rows = (labels == label) & has_train[users]                 # users without a training row are dropped (2.2)
            self.held[split] = (users[rows], items[rows])
        for m, x in features.items():
            if len(x) != self.I:
                raise UserError(f"{m}_feat.npy has {len(x)} rows, the interactions have {self.I} items: they must be equal")
        self.features = {m: features[m] for m in sorted(features)}

    def items_of(self, u):
        return self.pair_i[self.start[u]:self.start[u + 1]]


NAMES = {"user": ("userID", "user_id", "user"), "item": ("itemID", "item_id", "item"), "label": ("x_label",)}


def load(folder, with_features=True):
    folder = os.path.abspath(folder)
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; expected a data set with NAME.inter in it")
    files = sorted(os.listdir(folder))
    inter = [f for f in files if f.endswith(".inter")]
    named = os.path.basename(folder) + ".inter"
    if named not in inter and len(inter) != 1:
        raise UserError(f"{folder}: expected {named} or one .inter file, found {len(inter)}")
    path = os.path.join(folder, named if named in inter else inter[0])
    table, header = _columns(path)
    ids = []
    for k, (what, file) in enumerate((("user", "u_id_mapping.csv"), ("item", "i_id_mapping.csv"))):
        file = os.path.join(folder, file)
        index, n, by_appearance = numbered(table[:, k], header[k], mapping(file, NAMES[what]), path, file)
        ids += [index, n]
        if by_appearance:      # on the standard error: the standard output is a program's that reads it
            print(f"{path}: {what} ids are names; numbered in order of first appearance", file=sys.stderr)
    labels = np.select([table[:, 2] == x for x in "012"], [0, 1, 2], -1)
    if labels.min() < 0:
        k = int(np.argmin(labels))
        raise UserError(f"{path}: interaction {k + 1}: {header[2]} is '{table[k, 2]}', expected 0 (training), 1 (validation) or 2 (test)")
    if not (labels == 0).any():
        raise UserError(f"{path}: no training rows; expected lines whose label is 0")
    features = {}
    if with_features:
        for f in files:
            if f.endswith("_feat.npy"):
                features[f[:-len("_feat.npy")]] = _matrix(os.path.join(folder, f))
    return Data(ids[0], ids[2], labels, features, os.path.basename(folder), ids[1], ids[3])


def _columns(path):
    """-> (rows,3) strings: user, item, label; and the names of these columns."""
    try:
        with open(path, encoding="utf-8") as f:
            header = f.readline().rstrip("\n").split("\t")
            at = []
            for what, names in NAMES.items():
                found = [header.index(h) for n in names for h in header if h.split(":")[0] == n]
                if not found:
                    raise UserError(f"{path}: line 1 lacks the column {names[0]}; it has {', '.join(header)}")
                at.append(found[0])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")             # of no rows: said below
                table = np.loadtxt(f, dtype=str, delimiter="\t", usecols=at, comments=None, ndmin=2)
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: {str(e).splitlines()[0]}; expected lines of columns separated by tabs, as in the header") from None
    if not len(table):
        raise UserError(f"{path}: has a header but no interactions, expected one line per interaction")
    return table, [header[k] for k in at]


def _matrix(path):
    try:
        x = np.load(path)
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: {str(e).splitlines()[0]}; expected a matrix saved by numpy.save") from None
    if x.ndim != 2 or x.dtype.kind != "f":
        raise UserError(f"{path}: has shape {x.shape} and type {x.dtype}, expected a matrix of float16, 32 or 64")
    x = np.ascontiguousarray(x, np.float32)
    if not np.isfinite(x).all():
        raise UserError(f"{path}: row {int(np.argmin(np.isfinite(x).all(1)))} has a value that is no finite float32")
    return x


# ----------------------------------------------------------------------------------------------------------------- graphs

def user_item_graph(u, i, U, I):
    """Symmetric normalised N x N graph of the given distinct pairs: 1/sqrt((deg_u + eps)(deg_i + eps)), in double, stored float32."""
    u, i = torch.as_tensor(u), torch.as_tensor(i)
    deg_u = torch.bincount(u, minlength=U).double() + EPS
    deg_i = torch.bincount(i, minlength=I).double() + EPS
    return symmetric(u, i, (deg_u[u] * deg_i[i]).rsqrt().float(), U, I)


def symmetric(u, i, value, U, I):
    """N x N graph with the value of each pair in both directions."""
    row, col = torch.cat([u, U + i]), torch.cat([U + i, u])
    order = torch.argsort(row * (U + I) + col)
    return torch.stack([row, col])[:, order], torch.cat([value, value])[order]


def row_graph(u, i, U, I):
    """LATTICE's N x N graph of the given distinct pairs, with self loops: each entry of row x is 1/(deg_x + 1). Not symmetric."""
    u, i, every = torch.as_tensor(u), torch.as_tensor(i), torch.arange(U + I)
    row, col = torch.cat([u, U + i, every]), torch.cat([U + i, u, every])
    value = (1 / torch.bincount(row, minlength=U + I).double())[row].float()
    order = torch.argsort(row * (U + I) + col)
    return torch.stack([row, col])[:, order], value[order]


def mean_graph(u, i, U, I):
    """MMGCN's N x N graph of the given distinct pairs: each entry of row x is 1/deg_x. Not symmetric."""
    u, i = torch.as_tensor(u), torch.as_tensor(i)
    row, col = torch.cat([u, U + i]), torch.cat([U + i, u])
    value = (1 / torch.bincount(row, minlength=U + I).double())[row].float()
    order = torch.argsort(row * (U + I) + col)
    return torch.stack([row, col])[:, order], value[order]


def edge_weights(data):
    """Weight of each distinct training pair in the pruning: (deg_u deg_i)^(-1/2) with full training degrees."""
    deg_u = np.bincount(data.pair_u, minlength=data.U) + EPS
    deg_i = np.bincount(data.pair_i, minlength=data.I) + EPS
    return 1.0 / np.sqrt(deg_u[data.pair_u] * deg_i[data.pair_i])


def kept_edges(E, rho):
    return E if rho <= 0 else int(np.floor(E * (1.0 - rho)))


def prune(weight, n_keep, generator=None):
    """Indices of n_keep edges drawn without replacement, successive probabilities proportional to weight: the n_keep smallest Exp(1)/weight."""
    race = torch.empty_like(weight).exponential_(generator=generator) / weight
    return torch.topk(race, n_keep, largest=False, sorted=False).indices


def knn(x, k, block=1024, self_first=False):
    """(I,k), ascending: the k items of largest cosine similarity for each row, the item itself among the candidates (self_first: one of the k whatever
    ties with it); equal similarities: lower index first; a zero row has similarity 0 with all. In blocks of rows: never an I x I matrix."""
    x = torch.nn.functional.normalize(x, dim=1, eps=1e-12)
    k = min(k, len(x))
    out = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    for b in range(0, len(x), block):
        sim = x[b:b + block] @ x.T
        if self_first:
            sim.diagonal(b).fill_(torch.inf)
        kth = torch.topk(sim, k, dim=1).values[:, -1:]
        above, equal = sim > kth, sim == kth
        room = k - above.sum(1, keepdim=True)
        chosen = above | (equal & (equal.cumsum(1) <= room))
        out[b:b + block] = chosen.nonzero()[:, 1].view(-1, k)
    return out


def knn_values(index_per_modality, weights, I):
    """S = sum of w_m K_m with K_m's values 1/sqrt((r_i + eps)(r_j + eps)), r = row sums of the 0/1 matrix (= k): overlapping entries add."""
    index, value = [], []
    for nb, w in zip(index_per_modality, weights):
        k = nb.shape[1]
        row = torch.arange(I, device=nb.device).repeat_interleave(k)
        index.append(torch.stack([row, nb.reshape(-1)]))
        value.append(torch.full((I * k,), w / (k + EPS), dtype=torch.float64, device=nb.device))
    s = torch.sparse_coo_tensor(torch.cat(index, 1), torch.cat(value), (I, I), check_invariants=False).coalesce()
    return s.indices(), s.values().float()


def modality_weights(names, image_weight=0.1):
    """One modality: 1. Two: image_weight for the one called image or visual (else the first), the rest for the other. More: equal."""
    if len(names) != 2:
        return [1.0 / len(names)] * len(names)
    visual = next((j for j, m in enumerate(names) if m in ("image", "visual", "vision")), 0)
    return [image_weight if j == visual else 1.0 - image_weight for j in range(2)]


def item_graph(features, k=10, image_weight=0.1):
    """The frozen item-item graph of FREEDOM from raw features (name -> (I,F) tensor)."""
    names = list(features)
    lists = [knn(features[m], k) for m in names]
    return knn_values(lists, modality_weights(names, image_weight), len(lists[0]))


def csr(index, value, n_rows, n_cols):
    """CSR tensor with 32-bit indices of a graph whose index is sorted by row, then column (MKL wants 32 bits)."""
    count = torch.bincount(index[0], minlength=n_rows)
    start = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return torch.sparse_csr_tensor(start.int(), index[1].int(), value, (n_rows, n_cols), check_invariants=False)


def transpose(index, value):
    order = torch.argsort(index[1], stable=True)
    return torch.stack([index[1], index[0]])[:, order], value[order]

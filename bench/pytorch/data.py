"""Data folders and graphs, in NumPy and PyTorch alone.

Folder (MMRec's layout): one tab-separated NAME.inter with userID, itemID, x_label (0 training, 1 validation, 2 test) and any number of
NAME_feat.npy, one row per item; a modality is called NAME, and modalities are taken in the order of their names.
Graphs are pairs (index (2,nnz) int64, value (nnz) float32), rows and columns ascending.
"""
import os

import numpy as np
import torch

EPS = 1e-7   # added to degrees (baselines.md 1.4): keeps degree 0 finite, nothing else


# ---------------------------------------------------------------------------------------------------------------- reading

class Data:
    """U, I; train_u, train_i (E): training rows as in the file; pair_u, pair_i: the distinct pairs, sorted; start (U+1): where a user's
    pairs begin; train_items: items with a training row; held[split] = (users, items) of "valid", "test"; features: name -> (I,F) float32."""

    def __init__(self, users, items, labels, features, name=""):
        self.name = name
        self.U, self.I = int(users.max()) + 1, int(items.max()) + 1     # over all splits, before any filter
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
                raise SystemExit(f"{m}_feat.npy has {len(x)} rows, the interactions have {self.I} items: they must be equal")
        self.features = {m: features[m] for m in sorted(features)}

    def items_of(self, u):
        return self.pair_i[self.start[u]:self.start[u + 1]]


def _ids(column, path, what):
    try:
        return column.astype(np.int64)
    except ValueError:   # ids that are no integers: numbered in order of first appearance
        print(f"{path}: {what} ids are not integers; numbered in order of first appearance")
        _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[inverse]


def load(folder, with_features=True):
    folder = os.path.abspath(folder)
    files = sorted(os.listdir(folder))
    inter = [f for f in files if f.endswith(".inter")]
    named = os.path.basename(folder) + ".inter"
    if named not in inter and len(inter) != 1:
        raise SystemExit(f"{folder}: expected {named} or one .inter file, found {len(inter)}")
    path = os.path.join(folder, named if named in inter else inter[0])
    with open(path) as f:
        header = [h.split(":")[0] for h in f.readline().rstrip("\n").split("\t")]
    missing = {"userID", "itemID", "x_label"} - set("userID" if h == "user_id" else "itemID" if h == "item_id" else h for h in header)
    if missing:
        raise SystemExit(f"{path}: line 1 lacks the column {sorted(missing)[0]}; it has {', '.join(header)}")
    at = [next(j for j, h in enumerate(header) if h in names) for names in (("userID", "user_id"), ("itemID", "item_id"), ("x_label",))]
    table = np.loadtxt(path, dtype=str, delimiter="\t", skiprows=1, usecols=at, comments=None, ndmin=2)
    features = {}
    if with_features:
        for f in files:
            if f.endswith("_feat.npy"):
                features[f[:-len("_feat.npy")]] = np.ascontiguousarray(np.load(os.path.join(folder, f)), np.float32)
    return Data(_ids(table[:, 0], path, "user"), _ids(table[:, 1], path, "item"), table[:, 2].astype(np.float64).astype(np.int64),
                features, os.path.basename(folder))


# ----------------------------------------------------------------------------------------------------------------- graphs

def user_item_graph(u, i, U, I):
    """Symmetric normalised N x N graph of the given distinct pairs: 1/sqrt((deg_u + eps)(deg_i + eps)), in double, stored float32."""
    u, i = torch.as_tensor(u), torch.as_tensor(i)
    deg_u = torch.bincount(u, minlength=U).double() + EPS
    deg_i = torch.bincount(i, minlength=I).double() + EPS
    value = (deg_u[u] * deg_i[i]).rsqrt().float()
    row, col = torch.cat([u, U + i]), torch.cat([U + i, u])
    order = torch.argsort(row * (U + I) + col)
    return torch.stack([row, col])[:, order], torch.cat([value, value])[order]


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


def knn(x, k, block=1024):
    """(I,k): the k items of largest cosine similarity for each row, the item itself among the candidates; equal similarities: lower index
    first; a zero row has similarity 0 with all. In blocks of rows: never an I x I matrix."""
    x = torch.nn.functional.normalize(x, dim=1, eps=1e-12)
    k = min(k, len(x))
    out = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    for b in range(0, len(x), block):
        sim = x[b:b + block] @ x.T
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

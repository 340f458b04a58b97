"""The judge of LATTICE's lists in a record (docs/run-format.md): each is held against similarities computed here, then the run goes on with it.

Which neighbour is the k-th is decided by rounding now and then, so a list is right when each of its items is as similar as the k-th best one, to within it.
The values on the lists are computed here: K_m by our own parameters, O_m from the raw features.
"""
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import lattice

FROZEN = 1e-6        # of a cosine similarity of raw features, which both programs have alike
LEARNED = 2e-5       # of projections by parameters that differ by what rounding has made of them
VALUE = 1e-5         # relative, of O_m


class Unusable(Exception):
    """What makes going on pointless."""


class Lists:
    def __init__(self, run, data, s, dtype, complain, seen):
        self.run, self.modalities, self.k, self.complain, self.seen = run, run.modalities, min(s.knn_k, data.I), complain, seen
        self.frozen, self.checked = {}, set()
        for m in self.modalities:
            x = torch.from_numpy(data.features[m]).double()
            index = self.index(f"graph.frozen.{m}.index", x, FROZEN)
            self.frozen[m] = index, lattice.frozen_list(x, index)[1].to(dtype)
            ours, theirs = self.frozen[m][1].double(), torch.tensor(run.arrays[f"graph.frozen.{m}.value"]).double()
            off = (ours - theirs).abs() > VALUE * ours.abs() + 1e-7
            if off.any():
                i, c = off.nonzero()[0].tolist()
                complain(f"graph.frozen.{m}.value: {int(off.sum())} values, the first in row {i}: {theirs[i, c].item():.9g}, expected {ours[i, c].item():.9g}")

    def index(self, name, y, tolerance):
        """The recorded list, checked."""
        if name not in self.run.arrays:
            raise Unusable(f"the record has no {name}")
        index = torch.tensor(self.run.arrays[name]).long()
        I = len(y)   # noqa: E741
        if index.shape != (I, self.k) or index.min() < 0 or index.max() >= I:
            raise Unusable(f"{name} has shape {tuple(index.shape)} or items that there are not, expected ({I}, {self.k})")
        y = F.normalize(y.double(), dim=1, eps=1e-12)
        for rows in torch.arange(I).split(1024):
            similarity = y[rows] @ y.T
            similarity[torch.arange(len(rows)), rows] = 2.0            # each row lists itself
            last = torch.topk(similarity, self.k, dim=1).values[:, -1:]
            listed = similarity.gather(1, index[rows])
            twice = (index[rows].sort(1).values.diff(dim=1) == 0).any(1)
            short = (last - listed).amax(1).clamp(min=0)
            self.seen.lists += len(rows)
            self.seen.list_gap = max(self.seen.list_gap, short[short <= tolerance].max().item() if (short <= tolerance).any() else 0.0)
            wrong = twice | ~(listed == 2.0).any(1) | ~(short <= tolerance)
            for i in rows[wrong][:3].tolist():
                self.complain(f"{name}, row {i}: {index[i].tolist()} are not the row itself and its nearest, to within {tolerance:g} of a similarity")
        return index

    def at(self, epoch, p):
        """`latent` (lattice.py) at the start of an epoch, or of the evaluation before it."""
        def learned(m):
            name = f"epoch.{epoch}.learned.{m}.index"
            if name in self.checked:                                    # by the evaluation of the epoch before: the same parameters
                return torch.tensor(self.run.arrays[name]).long()
            self.checked.add(name)
            return self.index(name, lattice.all_projected(p, m), LEARNED)

        return SimpleNamespace(learned={m: learned(m) for m in self.modalities}, frozen=self.frozen, values=None, weight=None)

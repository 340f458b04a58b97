"""The judge of RealHNS in a record (docs/run-format.md). Which rows are active, and which of the best a row draws, is not recorded. What must hold is a
distribution: a row whose slot is active and that has candidates left takes one of its T best, each equally likely, every other row a uniform item. Of a
record without candidates the band is computed here, and the means are those of being in it.
"""
import numpy as np
import torch
import torch.nn.functional as F

import realhns

COHESION = 0.1       # relative, of k-means from other initial centres


class Band:
    """An epoch's band, share of active slots and threshold; the candidates where the record has them. allowed(users) -> (n,I) bool: items that may be taken."""

    def __init__(self, run, data, s, e, complain, rounding):
        self.s, self.data, self.e, self.share, self.complain, self.rounding = s, data, e, realhns.share(e + 1, s), complain, rounding
        table, cohesion = run.of(e, "table"), run.of(e, "cohesion")
        if (table is None) != (cohesion is None):
            complain(f"epoch {e}: candidates without the cohesion of their epoch, or it without them")
        given = table is not None and cohesion is not None
        self.table, self.cohesion = (torch.tensor(table.astype(np.int64)), float(cohesion[0])) if given else (None, None)

    def begin(self, H_u, H_i, allowed):
        """By the representations of evaluation before the epoch: the rankings, and clusters of the items."""
        score = torch.where(torch.tensor(allowed(np.arange(self.data.U))), H_u @ H_i.T, -torch.inf)
        order = score.argsort(1, descending=True)
        rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
        means = [realhns.cohesion(H_i, self.s, torch.Generator().manual_seed(seed)) for seed in range(5)]
        if self.table is not None:
            self.check(score, order, rank, H_u.abs() @ H_i.abs().T, means)
        first, last = realhns.band(self.data.I, self.s)
        self.inside = (first <= rank) & (rank < last) & (score > -torch.inf)
        self.threshold = realhns.threshold(sum(means) / len(means) if self.cohesion is None else self.cohesion, self.e + 1, self.s)

    def check(self, score, order, rank, mass, means):
        """The candidates: of every user those at the same places of his ranking. The cohesion: near that of our own clusters."""
        s, I, name = self.s, self.data.I, f"epoch {self.e}"   # noqa: E741
        first, last = realhns.band(I, s)
        N = realhns.n_candidates(I, s)
        if self.table.shape != (self.data.U, N):
            self.complain(f"{name}: candidates of shape {tuple(self.table.shape)}, expected {(self.data.U, N)}")
            self.table = None
            return
        listed, left = self.table >= 0, (score > -torch.inf).sum(1)
        places = torch.where(listed, rank.gather(1, self.table.clamp(min=0)), I).median(0).values     # of most users
        if len(torch.unique(places)) < N or places.min() < first or places.max() >= last:
            self.complain(f"{name}: candidates at the places {places.tolist()[:9]} .., expected {N} different ones from {first} to below {last}")
            return
        expected = order.gather(1, places.expand_as(self.table))
        own, theirs = (x.gather(1, y) for x, y in ((score, expected), (score, self.table.clamp(min=0))))
        close = (own - theirs).abs() <= self.rounding * mass.gather(1, expected)
        wrong = torch.where(places < left[:, None], ~listed | ~close, listed)
        for u in wrong.any(1).nonzero()[:3, 0].tolist():
            self.complain(f"{name}, user {u}: {int(wrong[u].sum())} candidates that do not stand at the places of the other users' candidates")
        if not min(means) * (1 - COHESION) <= self.cohesion <= max(means) * (1 + COHESION):
            self.complain(f"{name}: a cohesion of {self.cohesion:.6g}, expected {min(means):.6g} to {max(means):.6g}, as of our own clusters")

    def places(self, r, batch, chosen, n_allowed):
        """Name -> (value, mean, variance) by row of two statistics: whether the item is one of the T best that are left, and its place among them. Without
        candidates: of whether it is in the band."""
        if self.table is None:
            return {"in the band": self.in_band(r, batch, chosen, n_allowed)}
        own = self.table[batch.users]
        items = r.items.detach()
        rows = [realhns.scores(r.users.detach()[batch.users[b]], items[batch.positives[b]], items[own[b].clamp(min=0)], own[b] >= 0, self.threshold)
                for b in torch.arange(len(own)).split(256)]
        score, T = torch.cat(rows), realhns.n_best(own.shape[1], self.s)
        order = score.argsort(1, descending=True)[:, :T]
        best = torch.where(score.gather(1, order) > -torch.inf, own.gather(1, order), -1)
        hit = (best == torch.tensor(chosen)[:, None]).numpy()
        count = (best >= 0).sum(1).numpy()
        active = self.share * (count > 0)
        chance = active + (1 - active) * count / np.maximum(n_allowed, 1)
        inside, place = hit.any(1), hit.argmax(1)
        return {"among the best": (inside.astype(float), chance, chance * (1 - chance)),
                "its place among them": (np.where(inside, place, 0), np.where(inside, (count - 1) / 2, 0), np.where(inside, (count ** 2 - 1) / 12, 0))}

    def in_band(self, r, batch, chosen, n_allowed):
        unit, inside = F.normalize(r.items.detach(), dim=1, eps=1e-12), self.inside[batch.users]
        left = ((unit[batch.positives] @ unit.T <= self.threshold) & inside).any(1).numpy()
        active = self.share * left
        chance = active + (1 - active) * inside.sum(1).numpy() / np.maximum(n_allowed, 1)
        return inside[torch.arange(len(chosen)), torch.tensor(chosen)].numpy().astype(float), chance, chance * (1 - chance)

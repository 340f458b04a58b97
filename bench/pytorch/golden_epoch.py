"""Two golden files of what is decided once an epoch: RealHNS' candidates, threshold and choice (realhns.py), and MCDRec's graph denoising (dgd.py).

realhns_choice.safetensors (all results in float64; no two scores or similarities are closer than float32 tells apart):
  h.users (U,d), h.items (I,d), train.index (2,nnz), and `places` (N), ranks from 0 of each user's items (those that occur in training and that he lacks,
      best first) at which his candidates stand: `table` (U,N) int32, -1 where his ranking ends before
  batch.users, batch.positives (B), `otherwise` (B): what a row takes that has no candidate left. Metadata `top`: how many of the best may be drawn
  `theta` (K): thresholds, of which the first leaves everything and the last nothing; `order` (K,B,N): the candidates left, best first, then -1
  `ranks` (K,B): the drawn rank among them (0 where none is left), `items` (K,B): the item of that rank, or `otherwise`
  cluster.items (n,d), cluster.initial (k): items that k-means begins with, one of each cluster; `cluster.assigned` (n), `cluster.centres` (k,d), means of
      the members' directions; `cohesion` (1) F64
  schedule.epoch (E) from 1, schedule.share (E) F64, schedule.threshold (E) F64 of cohesion 1 (0 where the share is), with realhns_start 5
  Item 0 and user 3's positive in row 5 have no length: their cosines are 0.

dgd.safetensors: param.user_embedding.weight (U,d), `x` (I,d) the end of the reverse process, edges (2,E) by user and item, metadata `tau`; all in float64:
  `weight` (E) 1 + tau cos, `degree.users` (U), `degree.items` (I), `race` (E) 1/sqrt(d_u d_i), `probability` (E) that over its sum: of being the first one kept
  kept (n) int32: positions of kept edges, ascending; `value` (n) their values; direct.race, direct.probability (E), direct.value (n): multiplied by the weight
  Item 1 of x has no length: its edges have weight 1.
"""
import numpy as np
import torch

import dgd
import golden_cases as C
import models as M
import realhns as R


def float64(x):
    return torch.tensor(np.asarray(x), dtype=torch.float64)


def apart(values, least=1e-4):
    """Whether finite numbers are pairwise that far apart, along the last dimension."""
    x = np.sort(np.where(np.isfinite(values), values, np.nan), axis=-1)
    return not (np.diff(x, axis=-1) < least).any()


def admissible_scores(H_u, H_i, member):
    """(U,I) h_u . h_i, -inf for items that do not occur in training or that the user has."""
    return (H_u @ H_i.T).masked_fill(torch.tensor(member | ~member.any(0)), -np.inf)


def make_realhns():
    k, (U, I, d, B, N, T) = C.Maker("realhns_choice"), (6, 40, 6, 8, 12, 4)   # noqa: E741
    member = k.rng.random((U, I)) < 0.2
    member[np.arange(U), np.arange(U) + 5] = True
    member[3, 0] = True                                   # the item without a length is somebody's
    member[4, :] = True
    member[4, 20:29] = False                              # a ranking that ends within the band
    member[:, I - 1] = False                              # in nobody's training
    h_u, h_i = k.normal((U, d)), k.normal((I, d))
    h_i[0] = 0
    users = np.array([0, 1, 2, 4, 5, 3, 0, 4])
    positives = np.array([k.rng.choice(np.flatnonzero(member[u])) for u in users])
    positives[5] = 0
    places = np.sort(k.rng.choice(np.arange(2, 24), N, replace=False))
    score = admissible_scores(float64(h_u), float64(h_i), member)
    table = R.candidates(score, torch.tensor(places))
    assert (table[4] == -1).any() and (table[4] >= 0).any() and (table[users] == 0).any()
    theta = np.array([2.0, 0.4, 0.1, -0.2, -1.01], np.float32)
    own = table[users]
    rows, listed = float64(h_i)[own.clamp(min=0)], own >= 0
    left = torch.stack([R.scores(float64(h_u)[users], float64(h_i)[positives], rows, listed, float(x)) for x in theta])      # (K,B,N)
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)   # noqa: E731
    like = (unit(rows.numpy()) * unit(h_i[positives].astype(np.float64))[:, None]).sum(2)
    assert apart(score.numpy()) and np.abs(like[..., None] - theta).min() > 1e-4, "too close for float32"
    order = left.argsort(dim=2, descending=True)
    taken = torch.where(left.gather(2, order) > -np.inf, own.expand_as(order).gather(2, order), -1)
    x = torch.tensor(k.rng.random((len(theta), B)))
    ranks = torch.stack([R.draw_rank(y, T, z) for y, z in zip(left, x)])
    otherwise = torch.full((B,), I - 1)
    items = torch.stack([R.at_rank(y, own, T, r, otherwise) for y, r in zip(left, ranks)])
    count = (taken >= 0).sum(2)
    assert (count[0] == listed.sum(1)).all() and (count[-1] == 0).all() and ((0 < count) & (count < T)).any() and (count[1:-1] > T).any() and ranks.max() == T - 1
    a = {"h.users": h_u, "h.items": h_i, "train.index": np.argwhere(member).T, "places": places, "table": table.numpy(), "batch.users": users,
         "batch.positives": positives, "otherwise": otherwise.numpy(), "theta": theta, "order": taken.numpy(), "ranks": ranks.numpy(), "items": items.numpy()}
    a.update(clusters(k))
    a = {n: x.astype(np.int32 if x.dtype.kind == "i" else np.float32) for n, x in a.items()}
    centres = R.cluster(float64(a["cluster.items"]), torch.tensor(a["cluster.initial"]).long())
    a["cluster.centres"], a["cohesion"] = centres.numpy().astype(np.float32), (centres ** 2).sum(1).mean().reshape(1).numpy()
    s, epochs = M.settings(sampler="realhns", ndi=False, cns=False), np.array([1, 5, 6, 7, 8, 14, 20, 21, 24, 27, 28, 40])
    a["schedule.epoch"] = epochs.astype(np.int32)
    a["schedule.share"], a["schedule.threshold"] = (np.array([f(e) for e in epochs]) for f in (lambda e: R.share(e, s), lambda e: R.threshold(1.0, e, s) * (R.share(e, s) > 0)))
    return a, {"format": "ccdrec-realhns", "version": "1", "top": str(T)}


def clusters(k):
    """Rows of any length around a few directions that are far apart, in any order."""
    directions, sizes, d = np.eye(7)[:5] - 0.2, (9, 3, 6, 12, 4), 7
    rows = np.concatenate([x + 0.15 * k.rng.standard_normal((n, d)) for x, n in zip(directions, sizes)]) * k.rng.uniform(0.1, 3, (sum(sizes), 1))
    label, order = np.repeat(np.arange(5), sizes), k.rng.permutation(sum(sizes))
    rows, label = rows[order], label[order]
    initial = np.array([k.rng.choice(np.flatnonzero(label == c)) for c in range(5)])
    nearest = np.argmax(rows @ R.cluster(float64(rows), torch.tensor(initial)).numpy().T, 1)
    assert np.array_equal(nearest, label), "clusters that are not found"
    return {"cluster.items": rows, "cluster.initial": initial, "cluster.assigned": label}


def make_dgd(tau=0.3):
    k, (U, I, d) = C.Maker("dgd"), (7, 9, 4)   # noqa: E741
    member = k.interactions(U, I, lonely_item=True, greedy_user=True, density=0.3)
    edges = np.argwhere(member).T
    P, X = k.normal((U, d), 0.3), k.normal((I, d), 0.3)
    X[1] = 0
    u, i = torch.tensor(edges)
    kept = torch.tensor(np.sort(k.rng.choice(len(u), int(0.5 * len(u)), replace=False)))
    weight = dgd.edge_weights(torch.tensor(P), torch.tensor(X), u, i, tau)
    out = {"weight": weight, **dict(zip(("degree.users", "degree.items"), dgd.degrees(weight, u, i, U, I)))}
    for prefix, direct in (("", False), ("direct.", True)):
        race = dgd.values(weight, u, i, U, I, direct)
        out.update({f"{prefix}race": race, f"{prefix}probability": race / race.sum(), f"{prefix}value": dgd.values(weight[kept], u[kept], i[kept], U, I, direct)})
    a = {"param.user_embedding.weight": P, "x": X, "edges": edges.astype(np.int32), "kept": kept.numpy().astype(np.int32), **{n: x.numpy() for n, x in out.items()}}
    return a, {"format": "ccdrec-dgd", "version": "1", "tau": repr(tau)}

"""Full ranking and its metrics: Recall, NDCG, Precision, MAP at k, averaged over the users of a split with equal weight (baselines.md 2.7).

Scores of training items are masked, validation items are not when testing. Between equal scores torch.topk's order stands.
"""
import numpy as np
import torch

KS = (5, 10, 20, 50)


class Split:
    """The held-out rows of a split, prepared once on a device: users (n), count (n), sorted keys user*I + item; and the training pairs of
    those users, ordered, for the mask."""

    def __init__(self, data, split, device):
        u, i = data.held[split]
        users, count = np.unique(u, return_counts=True)
        begin, end = data.start[users], data.start[users + 1]
        take = np.concatenate([np.arange(b, e) for b, e in zip(begin, end)]) if len(users) else np.zeros(0, np.int64)
        t = lambda a: torch.as_tensor(a, device=device)   # noqa: E731
        self.I = data.I
        self.users, self.count = t(users), t(count)
        self.key = t(np.unique(u * np.int64(data.I) + i))
        self.mask_start = np.concatenate([[0], np.cumsum(end - begin)])
        self.mask_row, self.mask_item = t(np.repeat(np.arange(len(users)), end - begin)), t(data.pair_i[take])


@torch.no_grad()
def rank(H_u, H_i, split, k=max(KS), block=1024):
    """(n,k) items of highest score for each user of the split, training items masked."""
    k = min(k, len(H_i))
    top = torch.empty(len(split.users), k, dtype=torch.int64, device=H_u.device)
    for b in range(0, len(split.users), block):
        e = min(b + block, len(split.users))
        score = H_u[split.users[b:e]] @ H_i.T
        m = slice(split.mask_start[b], split.mask_start[e])
        score[split.mask_row[m] - b, split.mask_item[m]] = -1e10
        top[b:e] = torch.topk(score, k, dim=1).indices
    return top


def hits(top, split):
    """(n,k) bool: is the item at this rank one of the user's held-out items?"""
    key = split.users[:, None] * split.I + top
    at = torch.searchsorted(split.key, key).clamp_(max=max(len(split.key) - 1, 0))
    return split.key[at] == key


def metrics(hit, count, ks=KS):
    """hit (n,k) bool in order of rank, count (n) held-out rows per user -> {"Recall@5": ...}."""
    hit, count = hit.double(), count.double()
    j = torch.arange(1, hit.shape[1] + 1, dtype=torch.float64, device=hit.device)
    n_hit, gain = hit.cumsum(1), (hit / torch.log2(j + 1)).cumsum(1)
    ideal = (1 / torch.log2(j + 1)).cumsum(0)
    average = (hit * n_hit / j).cumsum(1)
    out = {}
    for k in ks:
        c = min(k, hit.shape[1]) - 1
        least = torch.minimum(count, torch.tensor(float(k), dtype=torch.float64, device=hit.device))
        best = ideal[(least.long() - 1).clamp_(max=len(ideal) - 1)]
        out[f"Recall@{k}"] = (n_hit[:, c] / count).mean().item()
        out[f"Precision@{k}"] = (n_hit[:, c] / k).mean().item()
        out[f"NDCG@{k}"] = (gain[:, c] / best).mean().item()
        out[f"MAP@{k}"] = (average[:, c] / least).mean().item()
    return out


def metrics_per_user(top, held, ks=KS):
    """The same in the manner of the published programs: lists and sets, one user after the other. top (n,k) array, held: n lists."""
    k_max = max(ks)
    sums = {f"{m}@{k}": 0.0 for m in ("Recall", "Precision", "NDCG", "MAP") for k in ks}
    discount = [1 / np.log2(j + 2) for j in range(k_max)]
    for items, truth in zip(top.tolist(), held):
        wanted = set(truth)
        flags = [item in wanted for item in items]
        for k in ks:
            n, gain, average = 0, 0.0, 0.0
            for j, flag in enumerate(flags[:k]):
                if flag:
                    n += 1
                    gain += discount[j]
                    average += n / (j + 1)
            least = min(k, len(truth))
            sums[f"Recall@{k}"] += n / len(truth)
            sums[f"Precision@{k}"] += n / k
            sums[f"NDCG@{k}"] += gain / sum(discount[:least])
            sums[f"MAP@{k}"] += average / least
    return {name: value / len(held) for name, value in sums.items()}

"""Adam on the rows of a feature table that a batch reads, with the steps a row was not read at made up for when it is next read.

A step with gradient 0 still moves a row: m <- b1 m, v <- b2 v, x <- x - lr/(1-b1^j) m / (sqrt(v)/sqrt(1-b2^j) + eps). For a row that was
last stepped at s, the k-th missed step is therefore a known function of the m and v it had at s,

    x <- x - a_k m / (b_k sqrt(v) + eps),   a_k = lr b1^k / (1 - b1^(s+k)),   b_k = b2^(k/2) / sqrt(1 - b2^(s+k)),

and all of them are applied in one visit: dense Adam's mathematics, other rounding (m and v are not rounded at every step). A row that never
had a gradient does not move. After LONGEST missed steps m has shrunk by 0.9^400 = 5e-19 and the rest is dropped.
"""
import math

import torch

B1, B2, EPS = 0.9, 0.999, 1e-8
UNROLL, LONGEST = 8, 400


def missed_steps(x, m, root_v, a, b):
    """UNROLL missed steps of some rows; a, b (n, UNROLL), a = 0 where a row has fewer. One pass over memory when compiled."""
    for k in range(UNROLL):
        x = x - a[:, k:k + 1] * m / (b[:, k:k + 1] * root_v + EPS)
    return x


class RowAdam:
    """x (I,F) parameter table, moments beside it; last (I): the step a row is up to date with; seen (I): has it ever had a gradient."""

    def __init__(self, x, lr, kernel=missed_steps, block_values=1 << 16):
        self.x, self.lr, self.kernel = x, lr, kernel
        self.m, self.v = torch.zeros_like(x), torch.zeros_like(x)
        self.last = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.seen = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        # rows at a time: a few arrays of a block fit a core's cache; a GPU takes everything at once
        self.block = len(x) if x.is_cuda else max(16, block_values // x.shape[1])

    @torch.no_grad()
    def catch_up(self, rows, now):
        """Brings the distinct `rows` to the state after step `now`."""
        gap = (now - self.last[rows]) * self.seen[rows]
        self.last[rows] = now
        gap, order = gap.sort(descending=True)
        n = int((gap > 0).sum())
        gap, rows = gap[:n], rows[order[:n]]
        for i in range(0, n, self.block):
            r, g = rows[i:i + self.block], gap[i:i + self.block]
            longest = min(int(g[0]), LONGEST)
            k = torch.arange(1, 1 + -(-longest // UNROLL) * UNROLL, device=g.device, dtype=torch.float64)
            j = (now - g)[:, None] + k
            a = torch.where(k <= g[:, None], self.lr * B1 ** k / (1 - B1 ** j), 0.0).float()
            b = (B2 ** (k / 2) / (1 - B2 ** j).sqrt()).float()
            x, m, v = (y.index_select(0, r) for y in (self.x, self.m, self.v))
            root_v = v.sqrt()
            for c in range(0, len(k), UNROLL):
                x = self.kernel(x, m, root_v, a[:, c:c + UNROLL].contiguous(), b[:, c:c + UNROLL].contiguous())
            g = g[:, None].double()
            for y, new in ((self.x, x), (self.m, m.mul_((B1 ** g).float())), (self.v, v.mul_((B2 ** g).float()))):
                y.index_copy_(0, r, new)

    @torch.no_grad()
    def step(self, rows, grad, t):
        """Step t of the distinct `rows`, which are up to date with step t-1."""
        for i in range(0, len(rows), self.block):
            r, g = rows[i:i + self.block], grad[i:i + self.block]
            m = self.m.index_select(0, r).mul_(B1).add_(g, alpha=1 - B1)
            v = self.v.index_select(0, r).mul_(B2).addcmul_(g, g, value=1 - B2)
            root = v.sqrt().div_(math.sqrt(1 - B2 ** t)).add_(EPS)
            self.x.index_copy_(0, r, self.x.index_select(0, r).addcdiv_(m, root, value=-self.lr / (1 - B1 ** t)))
            self.m.index_copy_(0, r, m)
            self.v.index_copy_(0, r, v)
        self.last[rows], self.seen[rows] = t, True

    def flush(self, now):
        self.catch_up(torch.arange(len(self.x), device=self.x.device), now)

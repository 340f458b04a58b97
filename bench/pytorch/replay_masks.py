"""The judge of BM3's masks in a record (docs/run-format.md): whether they are drawn as the specification says. What they do, the losses show.

A mask belongs to a row of a table and to a pass: equal ids have equal masks in a pass, and others in the next one. Kept are 1 - rho of the elements, and
two masks that are drawn apart (of two tables, or of one row in two passes) agree in rho^2 + (1 - rho)^2 of them; both to within ASTRAY standard errors, an epoch's
elements together.
"""
import math

import numpy as np

import bm3
from replay_lattice import Unusable


class Masks:
    def __init__(self, run, data, s, complain, seen, astray):
        self.run, self.s, self.complain, self.seen, self.astray = run, s, complain, seen, astray
        self.names = ["users", "items", *run.modalities]
        # (rows, d): of each row the last mask, 2 where there was none
        self.last = {n: np.full((data.U if n == "users" else data.I, s.embedding_size), 2, np.int8) for n in self.names}
        self.count = {}

    def of_pass(self, e, k, n, at, batch):
        """name -> (B,d) bool of pass n of step k"""
        d, words = self.s.embedding_size, -(-self.s.embedding_size // 16)
        rows = {name: self.run.drawn(e, "mask." + name, at) for name in self.names}
        for name, x in rows.items():
            if x.shape != (len(batch.users), words) or x.min() < 0 or x.max() >= 1 << 16:
                raise Unusable(f"epoch {e}: {at.prefix}mask.{name} has shape {x.shape} or numbers beyond 16 bits in step {k}, expected {(len(batch.users), words)}")
        masks = {name: bm3.unpacked(bm3.torch.tensor(x).long(), d) for name, x in rows.items()}
        first = None
        for name, mask in masks.items():
            x, ids = mask.numpy(), (batch.users if name == "users" else batch.positives).numpy()
            distinct, one, row = np.unique(ids, return_index=True, return_inverse=True)
            if (x[one][row] != x).any():
                b = int(np.argmax((x[one][row] != x).any(1)))
                self.complain(f"epoch {e}, step {k}: mask.{name} differs between rows of {'user' if name == 'users' else 'item'} {ids[b]}")
            x = x[one].astype(np.int8)
            self.add(name, "kept", x == 1)
            before = self.last[name][distinct]
            self.add(name, "as before", (x == before)[before < 2])
            self.last[name][distinct] = x
            if name != "users":
                if first is not None:
                    self.add(name, "as the items'", x == first)
                first = x if first is None else first
        self.seen.masks += sum(x.numel() for x in masks.values())
        return masks

    def add(self, name, what, yes):
        sums = self.count.setdefault((name, what), [0, 0])
        sums[0] += int(yes.sum())
        sums[1] += yes.size

    def check(self, e):
        rho = self.s.dropout
        for (name, what), (yes, n) in self.count.items():
            want = 1 - rho if what == "kept" else rho * rho + (1 - rho) ** 2
            off = abs(yes - want * n)
            z = off / math.sqrt(max(n * want * (1 - want), 1e-300)) if off > 1e-9 * n else 0.0
            if not z <= self.seen.mask_astray:
                self.seen.mask_astray, self.seen.mask_astray_at = z, f"mask.{name} {what}, epoch {e}"
            if not z <= self.astray:
                self.complain(f"epoch {e}: of mask.{name} {yes / max(n, 1):.4g} of {n} elements are {what}, expected {want:.4g} ({z:.3g} standard errors)")
        self.count = {}

"""Check of what torch.compile is tried with (tuned.py): code compiled for the examples must serve the steps, or compilation falls into an epoch."""
import numpy as np
import torch

import models as M
import train
from checking import report, small_data


def kinds(x):
    """What compiled code is made for, of an argument: types, ranks, strides of rows, gradients, and of a view also what it is a view of."""
    if torch.is_tensor(x):
        return (x.dim(), x.dtype, x.requires_grad, x.stride()[1:] if x.dim() > 1 else x.stride())
    if isinstance(x, dict):
        return {k: kinds(v) for k, v in x.items()}
    return [type(x), *map(kinds, x)] if isinstance(x, (list, tuple)) else x


def flat(x):
    return [x] if torch.is_tensor(x) else [y for v in (x.values() if isinstance(x, dict) else x) for y in flat(v)] if isinstance(x, (dict, list, tuple)) else []


def other_kind(example, given):
    """The number of arguments whose kind the examples do not show. Which are one tensor must be the same, too; an example may be no view, since code made
    for a view is for views of that very kind."""
    same = lambda x: [[a is b for a in flat(x)] for b in flat(x)]   # noqa: E731
    return sum(kinds(a) != kinds(b) for a, b in zip(example, given)) + (same(example) != same(given)) + sum(x._is_view() for x in flat(example))


def check_compile():
    for model, setting in (("BPR", {}), ("LightGCN", {}), ("FREEDOM", dict(reg_weight=0.05)), ("LATTICE", dict(reg_weight=0.05)), ("CCDRec", dict(n_neg=2)), ("CCDRec", dict(dtau=1, tau_end=1)),
                           ("CCDRec", dict(reg_weight=0.05, train_features=False))):
        data = small_data(np.random.default_rng(5))
        B = 48
        f = train.Tuned(data, M.settings(model=model, train_batch_size=B, embedding_size=16, timesteps=4, **setting), compile="off")
        wrong, plain, estimate, chain = [], f.total_loss, f.ops.estimate, f.chain

        def spied(function, example, wrong=wrong):
            def call(*given):
                wanted = list(example)
                if function is plain and given[10] is None:      # no curricular negatives: tried, too
                    wanted[10] = None
                wrong.append(other_kind(wanted, given))
                return function(*given)
            return call

        f.total_loss = spied(plain, f.example_loss(B))
        if model == "CCDRec":
            f.ops.estimate, f.chain = staticmethod(spied(estimate, f.example_estimator(B))), spied(chain, f.example_chain(B))
        for epoch in range(3):
            f.epoch(epoch)
        report(f"compile, {model} {setting or ''}: calls of {len(wrong)} that no example is like", sum(map(bool, wrong)) + (not wrong), 0)

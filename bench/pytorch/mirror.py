"""Mirror Gradient (baselines.md 10): two steps of Adam on the batches 0, beta, 2 beta .. of an epoch, the second against the gradient.

It is a way to step and knows nothing of the model. Both steps are whole ones of the same Adam: they share m and v, and t advances twice. The
second takes the gradient at the parameters the first one left, on the same rows and random negatives; what else chance decides in a step
(diffusion steps, noise, candidates, ranks, mixing coefficients) it draws again. The gradient is scaled, not the loss.
"""


def passes(j, s):
    """Factors of the gradient in the steps of batch j, counted from 0 in each epoch: one step, or two."""
    return (s.alpha1, -s.alpha2) if s.use_mg and j % s.beta == 0 else (1.0,)


def steps(n_batches, s):
    """How many steps of Adam the batches of an epoch are."""
    return sum(len(passes(j, s)) for j in range(n_batches))

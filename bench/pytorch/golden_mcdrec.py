"""MCDRec's arrays of the golden cases, and the list of its cases (docs/step-format.md).

The U-Net's 100,881 parameters make a case large, so few have them; the others have the attention estimator or no diffusion. On 1x1 maps a group is two
values x1, x2 and the group norm nearly the sign of D = (x1 - x2)/2: another program may land on the other side of a D near 0. A case's `salt` is
chosen so that every |D| is at least NEAREST, which is asserted.
"""
import numpy as np
import torch

import dgd
import unet

NEAREST = 4e-3       # eps is 1e-6: the slope there is 15, at 0 it is 1000


def parameters(k):
    """name -> array. Weights by the values that are summed, not by the published fan-in: larger than fresh ones, so that D is seldom small."""
    return {f"unet.{n}": k.normal(shape, 1 / np.sqrt(shape[-1])) if len(shape) == 2 else
            (1 + k.normal(shape, 0.3) if fan == 0 and n.endswith("weight") else k.normal(shape, 0.1)) for n, (shape, fan) in unet.TENSORS.items()}


def weighted_graph(k, kept, U, I):
    """(index, value) of the kept edges, whose weights a last reverse process gave."""
    a = torch.tensor(1 + k.rng.uniform(-0.3, 0.3, len(kept)))
    return dgd.graph(a, *torch.tensor(kept.T.copy()), U, I)


def mask(k, n, s):
    return unet.packed(torch.tensor(k.rng.random((n, unet.MASK)) >= s.unet_dropout)).numpy()


class Watched(unet.Plain):
    """Remembers the least |D|."""
    least = np.inf

    @classmethod
    def norm(cls, x, gain, bias):
        if x[0].numel() == 2 * unet.GROUPS:
            cls.least = min(cls.least, ((x.reshape(-1, 8, 2) @ x.new_tensor([0.5, -0.5])).abs().min()).item())
        return unet.Plain.norm(x, gain, bias)


# ------------------------------------------------------------------------------------------------------------- the list

ONE, TWO = {"text": 6}, {"image": 5, "text": 6}


def setting(**more):
    return dict(model="MCDRec", estimator="attention") | more


WITH_UNET = {
    "mcdrec_unet": (dict(model="MCDRec", reg_weight=0.05), dict(U=5, I=5, d=64, B=4, widths=TWO, masked=True, density=0.2, salt="84")),
    "ccdrec_mcdrec_unet": (dict(model="CCDRec", backbone="MCDRec", estimator="unet"), dict(U=5, I=6, d=64, B=3, widths=ONE, curricular="index", salt="94")),
}
STEPS = {
    "mcdrec": (setting(), dict(duplicates=True, wide_index=True)),
    "mcdrec_modality_loss": (setting(reg_weight=0.05), dict(t=7)),
    "mcdrec_weights": (setting(mu=0.3, lambda_dm=2.0, noise_schedule="cosine", n_mm_layers=2, n_ui_layers=1), dict(widths=ONE)),
    "mcdrec_one_modality_T5": (setting(timesteps=5, mu=1.0), dict(widths=ONE, lonely_item=True)),
    "mcdrec_T1": (setting(timesteps=1), dict(widths=ONE)),
    "mcdrec_two_negatives": (setting(n_neg=2, reg_weight=0.05), dict(widths=ONE)),
    "mcdrec_fixed_features": (setting(train_features=False), dict(t=7, greedy_user=True)),
    "mcdrec_three_modalities": (setting(lambda_dm=0.0), dict(widths={"audio": 6, "image": 5, "text": 5})),
    "mcdrec_no_diffusion": (dict(model="MCDRec", mrd=False, reg_weight=0.05), dict(t=7)),
    "mcdrec_no_diffusion_reg0": (dict(model="MCDRec", mrd=False), dict(widths=ONE)),
    **WITH_UNET,
}
dns, mixgcf = dict(sampler="dns", n_candidates=4), dict(sampler="mixgcf", n_candidates=4)
HARD = {
    "mcdrec_dns": (setting(reg_weight=0.05, **dns), dict(duplicates=True)),
    "mcdrec_mixgcf": (setting(n_neg=2, omega=0.7, **mixgcf), dict(widths=ONE)),
    "mcdrec_no_diffusion_dns": (dict(model="MCDRec", mrd=False, **dns), dict(widths=ONE)),
}
MIRROR = {
    "mcdrec": (setting(use_mg=True, reg_weight=0.05), (1, -0.2), dict(t=7, widths=ONE)),
    "mcdrec_first_step": (setting(use_mg=True, alpha1=0.5, alpha2=0.3), (0.5, -0.3), dict(widths=ONE)),
}
REVERSES = {
    "reverse_mcdrec": (setting(timesteps=5), dict(widths=TWO)),
    "reverse_mcdrec_unet": (dict(model="MCDRec", timesteps=5), dict(I=4, d=64, widths=TWO, salt="289")),
}
EVERYTHING = ("reverse_mcdrec_unet",)

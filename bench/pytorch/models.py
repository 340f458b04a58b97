"""BPR-MF, LightGCN, FREEDOM, LATTICE, MCDRec and CCDRec on FREEDOM, LATTICE or MCDRec as plain functions of given arrays, from the specification;
gradients by autograd. LATTICE's own mathematics: lattice.py; MCDRec's: unet.py and, of its pruning, dgd.py. As a backbone it is FREEDOM but for that.
BM3, SLMRec and MMGCN have steps of their own, in a file each (OWN), behind the same functions.

Nothing here draws a random number: batch, negatives, diffusion steps, noise and masks are arguments. Everything works in float32 and float64.
Names of arrays are those of docs/step-format.md. The forms of training (train.py) replace three operations through `Ops`: the sparse
product, the projection of features and the estimator; the rest they share, so that they differ in how and not in what they compute.

Shapes: U users, I items, N = U+I, d width, B batch rows, n distinct items of the batch, M modalities, K = M+2 tokens, T diffusion steps.
"""
import functools
import json
import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F

import bm3
import hard as H
import lattice
import mmgcn
import slmrec
import unet
from mistakes import UserError

DEFAULTS = dict(model="CCDRec", backbone="FREEDOM", embedding_size=64, n_ui_layers=2, n_mm_layers=1, reg_weight=0.0, learning_rate=1e-3,
                train_batch_size=2048, n_neg=1, train_features=True, knn_k=10, mm_image_weight=0.1, dropout=0.8,
                dma=True, ndi=True, cns=True, ndi_negative="pool", lambda_dm=1.0, omega=0.8, mu=0.5, timesteps=20, noise_schedule="linear",
                noise_prediction_form=False, mirrored_timesteps=True, dtau=5, first_stage=0, tau_end=30, candidate_ratio=0.1, kappa=0.1,
                cns_cosine=False, estimator="attention",
                lambda_coeff=0.9, learning_rate_scheduler=[1.0, 50.0], dgd="on", dgd_tau=0.3, mrd=True, unet_dropout=0.1,
                sampler="none", n_candidates=32, top_m=1, popularity_power=0.75, realhns_p_min=0.0, realhns_p_max=10.0, realhns_candidates=1000,
                realhns_clusters=100, realhns_start=5, realhns_top=0.1, use_mg=False, alpha1=1.0, alpha2=0.2, beta=3,
                cl_weight=2.0, temp=0.2, ssl_temp=0.1, ssl_alpha=0.01, weight_decay=0.0, mmgcn_latent=256,
                skip_idle=True)   # ours: leave out terms of weight 0, which is exact; off: compute them, as the published programs do
SCHEDULES = ("linear", "cosine", "exponential", "sqrt")
MODEL_DEFAULTS = dict(BPR=dict(reg_weight=0.1), LightGCN=dict(reg_weight=1e-4), FREEDOM={}, LATTICE=dict(reg_weight=1e-5), MCDRec=dict(lambda_dm=0.5, estimator="unet"),
                      BM3=dict(n_ui_layers=1, reg_weight=0.1, dropout=0.5, n_neg=0), SLMRec=dict(n_ui_layers=3, weight_decay=1e-4, n_neg=0), MMGCN={},
                      CCDRec=dict(learning_rate=5e-4, train_batch_size=512))
OWN = dict(BM3=bm3, SLMRec=slmrec, MMGCN=mmgcn)
BACKBONES = dict(FREEDOM={}, LATTICE=dict(learning_rate_scheduler=[0.96, 50.0]), MCDRec={})      # of CCDRec; what differs, also where the model is one of them


AT_LEAST = dict(embedding_size=1, n_ui_layers=0, n_mm_layers=1, train_batch_size=1, n_neg=0, knn_k=1, mmgcn_latent=1, timesteps=1, dtau=1, first_stage=0, tau_end=0,
                n_candidates=1, top_m=1, beta=1, realhns_candidates=1, realhns_clusters=1, realhns_start=0)
OPEN_ZERO = ("learning_rate", "candidate_ratio", "kappa", "realhns_top", "temp", "ssl_temp")     # numbers above 0; the others may be 0
BELOW_ONE = ("dropout", "unet_dropout")
AT_MOST_ONE = ("unet_dropout", "mm_image_weight", "dropout", "omega", "mu", "candidate_ratio", "kappa", "lambda_coeff", "realhns_top")


def check_setting(key, x):
    kind = type(DEFAULTS[key])
    if kind is list:
        if not (type(x) is list and len(x) == 2 and all(type(y) in (int, float) and 0 < y < math.inf for y in x)):
            raise UserError(f"{key} is {json.dumps(x)}, expected two numbers above 0")
        return
    right = type(x) in ((int, float) if kind is float else (kind,))
    if right and kind is int:
        right = x >= AT_LEAST[key]
    if right and kind is float:
        right = 0 <= x < math.inf and not (key in OPEN_ZERO and x == 0) and not (key in AT_MOST_ONE and x > 1) and not (key in BELOW_ONE and x == 1)
    if not right:
        least = AT_LEAST.get(key, 0)
        above = "above 0" if key in OPEN_ZERO else "of at least 0"
        want = {int: f"an integer of at least {least}", bool: "true or false", str: "a word",
                float: f"a number {above}" + (", less than 1" if key in BELOW_ONE else ", at most 1" if key in AT_MOST_ONE else "")}[kind]
        raise UserError(f"{key} is {json.dumps(x)}, expected {want}")


def settings(**given):
    unknown = set(given) - set(DEFAULTS)
    if unknown:
        raise UserError(f"unknown setting {sorted(unknown)[0]}")
    for key, x in given.items():
        check_setting(key, x)
    model = given.get("model", DEFAULTS["model"])
    if model not in MODEL_DEFAULTS:
        raise UserError(f"model {model} is none of {', '.join(MODEL_DEFAULTS)}")
    of_sampler = {} if given.get("sampler", "none") == "none" else dict(omega=0.5)
    of_backbone = BACKBONES.get(given.get("backbone", DEFAULTS["backbone"]) if model == "CCDRec" else model, {})
    s = SimpleNamespace(**{**DEFAULTS, **MODEL_DEFAULTS[model], **of_backbone, **of_sampler, **given})
    if (s.n_neg == 0) != (s.model in OWN and not OWN[s.model].NEGATIVES):
        raise UserError(f"n_neg is {s.n_neg}: {s.model} has {'no negatives' if s.n_neg else 'at least one'}")
    if s.weight_decay and s.model != "SLMRec":
        raise UserError(f"weight_decay is {s.weight_decay}: {s.model} is trained without it")
    if s.model in OWN and s.sampler != "none":
        raise UserError(f"sampler {s.sampler}: {s.model} has none")
    if s.model == "SLMRec" and s.embedding_size % 2:
        raise UserError(f"embedding_size is {s.embedding_size}, expected an even number for SLMRec")
    if s.estimator not in ("attention", "unet"):
        raise UserError(f"estimator is {s.estimator}: the baseline has attention and unet only")
    if s.model == "CCDRec" and s.backbone not in BACKBONES:
        raise UserError(f"the baseline has CCDRec on {', '.join(BACKBONES)} only")
    if s.dgd not in ("on", "off", "direct"):
        raise UserError(f"dgd {s.dgd} is none of on, off, direct")
    if s.realhns_p_max > 100 or s.realhns_p_min >= s.realhns_p_max:
        raise UserError(f"realhns_p_min is {s.realhns_p_min} and realhns_p_max {s.realhns_p_max}, expected percentages, the first one smaller")
    if diffuses(s) and s.estimator == "unet" and s.embedding_size != 64:
        raise UserError(f"embedding_size is {s.embedding_size}, expected 64 for the U-Net, whose images have 8 x 8 pixels")
    if s.model == "CCDRec" and (s.embedding_size % 2 or s.embedding_size < 4):
        raise UserError(f"embedding_size is {s.embedding_size}, expected an even number of at least 4 for CCDRec")
    if s.sampler not in H.SAMPLERS:
        raise UserError(f"sampler {s.sampler} is none of {', '.join(H.SAMPLERS)}")
    if s.sampler != "none" and s.model == "CCDRec" and (s.ndi or s.cns):
        raise UserError(f"sampler {s.sampler} takes the place of CCDRec's own negatives, expected ndi and cns to be false")
    if s.top_m > s.n_candidates:
        raise UserError(f"top_m is {s.top_m}, expected at most n_candidates, {s.n_candidates}")
    if s.noise_schedule not in SCHEDULES:
        raise UserError(f"noise_schedule {s.noise_schedule} is none of {', '.join(SCHEDULES)}")
    if s.ndi_negative not in ("pool", "index"):
        raise UserError(f"ndi_negative {s.ndi_negative} is none of pool, index")
    return s


def backbone(s):
    return s.backbone if s.model == "CCDRec" else s.model


def own(s):
    """The file of a model that has a step of its own, else None."""
    return OWN.get(s.model)


def has_features(s):
    """An item graph, raw features and their projections."""
    return backbone(s) in BACKBONES


def reads_features(s):
    return has_features(s) or s.model in OWN


def has_masks(s):
    """Items are projected and targets masked."""
    return s.model == "BM3"


def prunes(s):
    """The training graph is drawn anew for each epoch."""
    return backbone(s) in ("FREEDOM", "MCDRec")


# ------------------------------------------------------------------------------------------------------------ diffusion

@functools.lru_cache
def schedule(T, kind="linear", noise_prediction_form=False):
    """float64 tensors, entry t for step t = 1..T, entry 0 for t = 0 (beta_0 unused): abar (abar_0 = 1), A, B, sigma of the reverse step."""
    t = torch.arange(1, T + 1, dtype=torch.float64)
    if kind == "linear":
        beta = 1e-4 + (t - 1) / max(T - 1, 1) * (2e-2 - 1e-4)
    elif kind == "cosine":
        g = lambda x: torch.cos((x / T + 0.008) / 1.008 * math.pi / 2) ** 2   # noqa: E731
        beta = (1 - g(t) / g(t - 1)).clamp(1e-4, 0.9999)
    elif kind == "exponential":
        x = 1 + (t - 1) * 2 * T / max(T - 1, 1)
        beta = 1 - torch.exp(-0.1 / T - x * (10 - 0.1) / (2 * T * T))
    elif kind == "sqrt":
        g = lambda y: 1 - torch.sqrt(y + 1e-4)   # noqa: E731
        beta = (1 - g(t / T) / g((t - 1) / T)).clamp(max=0.999)
    else:
        raise UserError(f"noise_schedule {kind} is none of {', '.join(SCHEDULES)}")
    beta = torch.cat([beta.new_zeros(1), beta])
    alpha = 1 - beta
    abar = alpha.cumprod(0)
    before = torch.cat([abar.new_ones(1), abar[:-1]])                     # abar_{t-1}
    rest = (1 - abar).clamp(min=1e-300)                                   # entry 0 is not used
    sigma = (beta * (1 - before) / rest).sqrt()
    if noise_prediction_form:
        A, B = -beta / (alpha.sqrt() * rest.sqrt()), 1 / alpha.sqrt()
    else:
        A, B = beta * before.sqrt() / rest, (1 - before) * alpha.sqrt() / rest
        A[1], B[1] = 1.0, 0.0                                             # exact; a rounded 1 - abar_1 would be off by 1e-4
    return SimpleNamespace(T=T, beta=beta, abar=abar, A=A.tolist(), B=B.tolist(), sigma=sigma.tolist())


@functools.lru_cache
def noise_levels(T, kind, dtype, device):
    """(T), (T): sqrt(abar_t) and sqrt(1 - abar_t), indexed by the zero-based step."""
    abar = schedule(T, kind).abar[1:]
    return abar.sqrt().to(device, dtype), (1 - abar).sqrt().to(device, dtype)


@functools.lru_cache
def time_table(T, d, dtype, device=None):
    """(T,d): row t is tau of the zero-based step t."""
    half = d // 2
    w = torch.exp(-torch.arange(half, dtype=torch.float64) * math.log(10000.0) / (half - 1))
    phase = torch.arange(T, dtype=torch.float64)[:, None] * w
    return torch.cat([phase.sin(), phase.cos()], 1).to(dtype=dtype, device=device)


def estimate(e_t, projections, tau, W_q, W_k, W_v):
    """f_theta, spec 3.3 as it stands: tokens [e_t, h_1..h_M, tau] (n,K,d), LayerNorm, one head, mean of the K outputs. Maps are (out,in)."""
    d = e_t.shape[1]
    token = F.layer_norm(torch.stack([e_t, *projections, tau.expand_as(e_t)], 1), (d,), eps=1e-5)
    q, k, v = token @ W_q.T, token @ W_k.T, token @ W_v.T
    a = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(d), dim=2)
    return (a @ v).mean(1)


def estimate_pooled(e_t, projections, tau, W_q, W_k, W_v):
    """The same value: only the column means of the attention matter, and the value map is applied once to the pooled token."""
    d = e_t.shape[1]
    token = F.layer_norm(torch.stack([e_t, *projections, tau.expand_as(e_t)], 1), (d,), eps=1e-5)
    a = torch.softmax((token @ W_q.T) @ (token @ W_k.T).transpose(1, 2) / math.sqrt(d), dim=2)
    return (a.mean(1, keepdim=True) @ token).squeeze(1) @ W_v.T


def estimator_weights(p):
    return [p[f"estimator.w_{x}.weight"] for x in "qkv"]


def answers(p, s, e_t, projections, t, ops, mask=None):
    """(n,d): f_theta of the rows e_t at the zero-based steps t (n), or all at step t. mask (n,4272) bool: what the U-Net's dropout keeps; None: all."""
    if s.estimator == "unet":
        return ops.unet(p, e_t, projections, t, s.timesteps, mask, 1 - s.unet_dropout)
    return ops.estimate(e_t, projections, time_table(s.timesteps, e_t.shape[1], e_t.dtype, e_t.device)[t], *estimator_weights(p))


def pool_steps(T):
    """How many reverse steps lie behind each of the four pools."""
    return [T // 4, T // 2, 3 * T // 4, T]


@torch.no_grad()
def reverse(p, projections, s, start, noise, answer=None):
    """The reverse process for all items of `start` (I,d). noise(t) gives (I,d) for the step from t to t-1, t = T..2; answer(e, t) that of the estimator to
    e at the zero-based step t (by default as the formulas stand). -> four pools."""
    answer = answer or (lambda e, t: answers(p, s, e, projections, t, Ops))
    Q = p["item_id_embedding.weight"]
    c = schedule(s.timesteps, s.noise_schedule, s.noise_prediction_form)
    T = c.T
    e = c.abar[T].sqrt().item() * Q + (1 - c.abar[T]).sqrt().item() * start
    states = {0: e}
    for t in range(T, 0, -1):
        e = c.A[t] * answer(e, t - 1) + c.B[t] * e
        if t > 1:
            e = e + c.sigma[t] * noise(t)
        states[T - t + 1] = e
        for j in [j for j in states if j not in pool_steps(T) and j != T - t + 1]:
            del states[j]
    return [states[j] for j in pool_steps(T)]


# ------------------------------------------------------------------------------------------------------------ operations

def layers(A, ego, L, mm):
    """[ego, A ego, .., A^L ego]"""
    out = [ego]
    for _ in range(L):
        out.append(mm(A, out[-1]))
    return out


def propagate(A, ego, L, mm):
    """Mean of ego, A ego, .., A^L ego."""
    total = ego
    for _ in range(L):
        ego = mm(A, ego)
        total = total + ego
    return total / (L + 1)


def gather(x, index):
    """Rows of x (R,d) by an index of any shape -> (*index.shape, d). index_select's way back is one index_add."""
    return x.index_select(0, index.reshape(-1)).view(*index.shape, x.shape[1])


class Ops:
    """The operations a form of training may replace."""
    propagate = staticmethod(lambda A, ego, L: propagate(A, ego, L, torch.sparse.mm))   # A symmetric, but for LATTICE
    layers = staticmethod(lambda A, ego, L: layers(A, ego, L, torch.sparse.mm))         # what propagate takes the mean of
    item_mm = staticmethod(torch.sparse.mm)                                             # S, not symmetric
    latent_graph = staticmethod(lattice.item_graph)                                     # S of LATTICE ..
    latent_mm = staticmethod(lattice.product)                                           # .. and its products
    estimate = staticmethod(estimate)
    unet = staticmethod(unet.simplified)

    @staticmethod
    def fuse(Hhat, items, rows, mu):
        """Hhat with its rows of the distinct items replaced by (1-mu) Hhat + mu rows."""
        return Hhat.index_copy(0, items, (1 - mu) * gather(Hhat, items) + mu * rows)

    @staticmethod
    def project(p, m, items):
        """(n,d) projections of the given items."""
        return F.linear(gather(p[f"{m}_embedding.weight"], items), p[f"{m}_trs.weight"], p[f"{m}_trs.bias"])

    @staticmethod
    def map_rows(tables, index, weight, bias):
        """A linear map of the given rows (None: all) of tables that stand side by side."""
        return F.linear(torch.cat([x if index is None else gather(x, index) for x in tables], 1), weight, bias)

    @classmethod
    def propagate_views(cls, A, P, starts, L):
        """SLMRec: one propagation from [P; start] for each start."""
        return [cls.propagate(A, torch.cat([P, x]), L) for x in starts]

    start = staticmethod(mmgcn.start)                                                   # MMGCN: x_1 of a modality ..

    @classmethod
    def messages(cls, graphs, m, k, x, C):
        """.. and M (x C) of its layer k"""
        return cls.item_mm(graphs.user_item, x @ C)


# ------------------------------------------------------------------------------------------------------------- one step

def diffuses(s):
    """The estimator exists and learns: DMA and MCDRec fuse its answers, NDI's pools are made of them."""
    return s.model == "CCDRec" and (s.dma or s.ndi) or s.model == "MCDRec" and s.mrd


def has_estimator(s):
    """Its parameters exist; without DMA and NDI they are never read."""
    return s.model == "CCDRec" or of_all_items(s)


def of_all_items(s):
    """Every step diffuses the whole catalogue, not the batch's items."""
    return s.model == "MCDRec" and s.mrd


def needs_projection(s):
    return diffuses(s) or prunes(s) and (s.reg_weight > 0 or not s.skip_idle)       # those that prune have a modality loss


def item_part(p, graphs, s, ops):
    """-> (Hhat (I,d), what is added to the items after propagation, LATTICE's graph or None): Hhat = S .. S Q, for LATTICE called Z and added with rows
    of length 1. Without an item graph: Q, nothing."""
    Hhat, S = p["item_id_embedding.weight"], None
    if not has_features(s):
        return Hhat, None, None
    if backbone(s) == "LATTICE":
        S = ops.latent_graph(p, graphs.latent, s.lambda_coeff)
    for _ in range(s.n_mm_layers):
        Hhat = ops.item_mm(graphs.item_item, Hhat) if S is None else ops.latent_mm(S, Hhat)
    return Hhat, Hhat if S is None else F.normalize(Hhat, dim=1, eps=1e-12), S


def represent(p, graphs, diffusion, modalities, s, ops=Ops):
    """Forward up to the tables of representations. graphs: user_item, item_item or, for LATTICE, latent (lattice.py). diffusion: items (n) distinct items among positives and
    random negatives (MCDRec: all items), t (n) zero-based, noise (n,d), count (n) how often each occurs (MCDRec: 1), mask (n,4272) bool or None: of the U-Net's
    dropout; t and noise are read by those that diffuse only.
    -> namespace with users (U,d), items (I,d), layers (MixGCF: the L+1 item tables (I,d) whose mean items is), latent (LATTICE's S) and what the losses need."""
    if own(s):
        return own(s).represent(p, graphs, diffusion, modalities, s, ops)
    P, Q = p["user_embedding.weight"], p["item_id_embedding.weight"]
    U = len(P)
    r = SimpleNamespace(P=P, Q=Q, projection={}, e_0=None, e_t=None, e0_hat=None, layers=None, latent=None)

    def propagated(ego, beside):
        """Users and items after propagation of [P; ego]; `beside` is added to the items, for MixGCF in every layer."""
        E_0, L = torch.cat([P, ego]), s.n_ui_layers
        with_beside = (lambda x: x) if beside is None else lambda x: x + beside   # noqa: E731
        if s.sampler == "mixgcf":
            E = ops.layers(graphs.user_item, E_0, L)
            r.layers, H = [with_beside(x[U:]) for x in E], sum(E) / (L + 1)
        else:
            H = ops.propagate(graphs.user_item, E_0, L)
        return H[:U], with_beside(H[U:])

    if s.model == "BPR":
        r.users, r.items, r.layers = P, Q, [Q]
        return r
    if needs_projection(s):
        r.projection = {m: ops.project(p, m, diffusion.items) for m in modalities}
    Hhat, beside, r.latent = item_part(p, graphs, s, ops)
    ego = Hhat if s.model == "CCDRec" else Q             # CCDRec starts the propagation from the item graph's output (spec 2)
    if diffuses(s):
        D, t = diffusion.items, diffusion.t
        keep, blur = noise_levels(s.timesteps, s.noise_schedule, Q.dtype, Q.device)
        r.e_0 = gather(Q if s.dma else Q.detach(), D)    # without DMA L_dm trains the estimator alone, the backbone feels nothing of it
        r.e_t = keep[t][:, None] * r.e_0 + blur[t][:, None] * diffusion.noise
        r.e0_hat = answers(p, s, r.e_t, list(r.projection.values()), t, ops, getattr(diffusion, "mask", None))
        if of_all_items(s):
            ego = (1 - s.mu) * Q + s.mu * r.e0_hat       # of the plain item table (mcdrec.md 4.1)
        elif s.dma:
            ego = ops.fuse(Hhat, D, r.e0_hat, s.mu)
    r.users, r.items = propagated(ego, beside)           # of the unfused Hhat
    return r


PARTS = ("bpr", "bpr_curricular", "align", "reg")     # what every result has; 0 where the model lacks it


def bpr_eps(x):
    return -torch.log(1e-10 + torch.sigmoid(x)).mean()


def bpr_log(x):
    return F.softplus(-x).mean()


def losses(r, batch, diffusion, s, tap=lambda x: x):
    """The terms of the loss, weights included, and the rows they are made of. batch: users, positives (B), negatives (n_neg,B), and
    curricular (B), or frozen (B,d), or neither; with a sampler (hard.py) hard. `tap` sees every tensor on its way into a term, once a use (golden_results.py measures masses there)."""
    if own(s):
        terms = own(s).losses(r, batch, diffusion, s, tap)
        zero = torch.zeros_like(next(iter(terms.values())))
        return {f"loss.{n}": x for n, x in {**dict.fromkeys(PARTS, zero), **terms, "total": sum(terms.values())}.items()}
    u, pos, neg = batch.users, batch.positives, batch.negatives
    zero = r.P.new_zeros(())
    bpr = bpr_eps if s.model in ("BPR", "LightGCN") else bpr_log
    wanted = [pos[None], neg] + ([batch.curricular[None]] if s.model == "CCDRec" and batch.curricular is not None else [])
    h_i = gather(r.items, torch.cat(wanted))             # (1 + n_neg (+ 1), B, d)
    h_u, h_p, h_n = gather(r.users, u), h_i[0], h_i[1:1 + len(neg)]
    dot = lambda a, b: (tap(a) * tap(b)).sum(1)   # noqa: E731

    def ranking(a, b, c):
        return bpr(dot(a, b) - dot(a, c))

    out = {"h.users": h_u, "h.positives": h_p, "h.negatives": h_n}
    random = sum(ranking(h_u, h_p, h_n[k]) for k in range(len(neg))) / len(neg)
    curricular, hard, align, reg = zero, zero, zero, zero
    omega = 0.0
    if s.model == "CCDRec" and batch.frozen is not None:
        omega, curricular = s.omega, ranking(h_u, h_p, batch.frozen)
    elif s.model == "CCDRec" and batch.curricular is not None:
        omega, out["h.curricular"] = s.omega, h_i[-1]
        curricular = ranking(h_u, h_p, out["h.curricular"])
    if H.used(s):
        omega = s.omega
        hard, arrays = H.term(r, batch, h_u, h_p, s, ranking, tap)
        out.update(arrays)
    if r.e0_hat is not None:
        n_rows = len(r.e_0) if of_all_items(s) else (1 + len(neg)) * len(u)
        gap = tap(r.e_0) - tap(r.e0_hat)
        align = (diffusion.count.to(gap)[:, None] * gap * gap).sum() / (n_rows * gap.shape[1])
    if r.latent is not None and (s.reg_weight > 0 or not s.skip_idle):
        reg = lattice.square_reg(tap(h_u), tap(h_p), [tap(x) for x in h_n], s.train_batch_size)
    elif s.model in ("BPR", "LightGCN") and s.reg_weight > 0:   # un-squared Frobenius norms of the gathered layer-0 rows
        norm = lambda x: torch.linalg.vector_norm(tap(x))   # noqa: E731
        rows = norm(gather(r.P, u)) + norm(gather(r.Q, pos)) + sum(norm(gather(r.Q, neg[k])) for k in range(len(neg))) / len(neg)
        reg = rows / len(u)
    elif r.projection and (s.reg_weight > 0 or not s.skip_idle):
        at = getattr(diffusion, "at", None)              # where the batch's items are among diffusion.items
        if at is None:
            at = torch.searchsorted(diffusion.items, torch.cat([pos[None], neg]))
        for h in r.projection.values():
            h = gather(h, at)
            reg = reg + sum(ranking(h_u, h[0], h[1 + k]) for k in range(len(neg))) / len(neg)
    out["loss.bpr"] = (1 - omega) * random
    out["loss.bpr_curricular"] = omega * curricular
    out["loss.align"] = s.lambda_dm * align
    out["loss.reg"] = s.reg_weight * reg
    out["loss.total"] = out["loss.bpr"] + out["loss.bpr_curricular"] + out["loss.align"] + out["loss.reg"]
    if s.sampler != "none":
        out["loss.bpr_hard"] = omega * hard
        out["loss.total"] = out["loss.total"] + out["loss.bpr_hard"]
    return out


def trained(p, s):
    """Names of the tensors that are parameters under these settings."""
    never = set() if s.train_features else set(feature_names(p))
    if own(s):
        never.update(own(s).constants(p))
    return [k for k in p if k not in never]


def feature_names(p):
    return [k for k in p if k.endswith("_embedding.weight") and k not in ("user_embedding.weight", "item_id_embedding.weight")]


def step(p, graphs, batch, diffusion, modalities, s, ops=Ops, tap=lambda x: x):
    """One step up to the gradients: every array of the result but `grad.*` and `new.*`, still attached to the graph."""
    r = represent(p, graphs, diffusion, modalities, s, ops)
    out = losses(r, batch, diffusion, s, tap)
    if own(s):
        return out
    out.update({f"projection.{m}": h for m, h in r.projection.items()})
    if r.e_t is not None:
        out["e_t"], out["e0_hat"] = r.e_t, r.e0_hat
    if r.latent is not None:
        out["s.value"] = r.latent.value
        out.update({f"projection_all.{m}": y for m, y in r.latent.projection.items()})
    return out


def adam(theta, g, m, v, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """Baselines 2.4 -> (theta, m, v) after step t, from 1."""
    if weight_decay:
        g = g + weight_decay * theta
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return theta - lr / (1 - beta1 ** t) * m / (v.sqrt() / math.sqrt(1 - beta2 ** t) + eps), m, v


# ---------------------------------------------------------------------------------------------------------- evaluation

@torch.no_grad()
def final_tables(p, graphs, s, pool=None, ops=Ops):
    """(users, items) for scoring, with the full graph; CCDRec and MCDRec fuse every item with the end of the reverse process (before the first one: none)."""
    if own(s):
        return own(s).final_tables(p, graphs, s, ops)
    P, Q = p["user_embedding.weight"], p["item_id_embedding.weight"]
    if s.model == "BPR":
        return P, Q
    Hhat, beside, _ = item_part(p, graphs, s, ops)
    ego = Hhat if s.model == "CCDRec" else Q
    if (s.model == "CCDRec" and s.dma or of_all_items(s)) and pool is not None:
        ego = (1 - s.mu) * ego + s.mu * pool
    H = ops.propagate(graphs.user_item, torch.cat([P, ego]), s.n_ui_layers)
    items = H[len(P):]
    return H[:len(P)], items if beside is None else items + beside


# -------------------------------------------------------------------------------------------------------------- initial

def initial(data_sizes, features, s, generator):
    """Parameters as the specification starts them. data_sizes = (U, I); features: name -> (I,F) float32 tensor."""
    (U, I), d = data_sizes, s.embedding_size

    def uniform(shape, bound):
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    def normal(shape):
        return torch.empty(shape).normal_(0, math.sqrt(2 / sum(shape)), generator=generator)

    if own(s):
        return own(s).initial(data_sizes, features, s, SimpleNamespace(uniform=uniform, xavier_normal=lambda *shape: normal(shape), default_bias=lambda n_in, n: uniform(
            (n,), 1 / math.sqrt(n_in)), xavier_uniform=lambda *shape: uniform(shape, math.sqrt(6 / sum(shape)))))
    table = normal if s.model == "BPR" else lambda shape: uniform(shape, math.sqrt(6 / sum(shape)))
    p = {"user_embedding.weight": table((U, d)), "item_id_embedding.weight": table((I, d))}
    if backbone(s) == "LATTICE":
        p["modal_weight"] = torch.full((len(features),), 1 / len(features))
    if has_features(s):
        for m, x in features.items():
            bound = 1 / math.sqrt(x.shape[1])
            p[f"{m}_embedding.weight"] = x.clone()
            p[f"{m}_trs.weight"], p[f"{m}_trs.bias"] = uniform((d, x.shape[1]), bound), uniform((d,), bound)
    if has_estimator(s) and s.estimator == "unet":
        p.update(unet.initial(uniform))
    elif has_estimator(s):
        for w in "qkv":
            p[f"estimator.w_{w}.weight"] = normal((d, d))
    return p

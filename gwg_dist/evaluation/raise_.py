"""RAISE: a stochastic lower bound of the likelihood of the annealing model, not of the energy-based model.

Burda, Grosse and Salakhutdinov, "Accurate and conservative estimates of MRF log-likelihood using reverse annealing",
AISTATS 2015. The annealing model draws x from the reference and moves it by T - 1 steps of the kernel, at beta_1 to
beta_T-1. It comes close to the energy-based model as T grows; off that model the number can be above its likelihood.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.evaluation.annealing import anneal
from gwg_dist.evaluation.exact import unnormalised_log_prob
from gwg_dist.evaluation.reverse import reverse_start
from gwg_dist.evaluation.schedules import beta_schedule
from gwg_dist.evaluation.tuned_path import TunedPath
from gwg_dist.samplers import Sampler, Target
from gwg_dist.tools.distributed import gather_rows

LABEL = "of the annealing model, not of the energy-based model"


class RAISEResult(NamedTuple):
    """Likelihoods of the annealing model.

    Args:
        mean: mean log-likelihood of the points, nats; low on average.
        stderr: standard error by the points and the chains together, nats.
        log_prob: each point's, ``(N,)`` float64.
    """

    mean: float
    stderr: float
    log_prob: Tensor


def raise_log_likelihood(
    target: Target,
    sampler: Sampler | TunedPath,
    codes: Tensor,
    *,
    generator: torch.Generator,
    num_chains: int = 10,
    num_temperatures: int = 1000,
    schedule: str = "linear",
    backend: str = "auto",
) -> RAISEResult:
    """The likelihood that the annealing model gives to points, estimated from each; called on every rank.

    A reverse run from v along x_T-1 = v, ..., x_0 has the log weight b = -sum_t (beta_t+1 - beta_t) f(x_t). With
    reversible kernels the probability of the annealing model to end at v is the mean of ref(v) exp(f(v) + b) over runs:

        q(v) = E[ref(x_0) prod_t T_t(x_t | x_t-1) / T_t(x_t-1 | x_t)]

    and the kernel's ratio is ref(x_t) exp(beta_t f(x_t)) / (ref(x_t-1) exp(beta_t f(x_t-1))) by detailed balance. By
    Jensen's inequality its logarithm is low on average.

    Args:
        target: target that has a reference.
        sampler: reversible, and leaves p_beta invariant for every beta.
        codes: points ``(N, D)``, the same on all ranks.
        generator: this rank's own, on the device of the model.
        num_chains: runs from each point.
        num_temperatures: T.
        schedule: see ``beta_schedule``.
        backend: see ``run_chain``.

    Raises:
        ValueError: no points, num_chains below 1, a target without a reference, points of another space.
    """
    if num_chains < 1:
        raise ValueError(f"num_chains must be positive, got {num_chains}")
    if not len(codes):
        raise ValueError("a likelihood needs at least one data point, got none")
    start = reverse_start(target, codes.repeat_interleave(num_chains, 0))
    betas = beta_schedule(num_temperatures, schedule).flip(0)
    points = anneal(target, sampler, start, betas, generator=generator, backend=backend)
    log_weights = gather_rows(deque(points, maxlen=1).pop().log_weights).cpu().view(len(codes), num_chains)
    model = unnormalised_log_prob(target, codes.to(target.device)).cpu()
    log_prob = model + log_weights.logsumexp(1) - math.log(num_chains)
    stderr = float(log_prob.std()) / math.sqrt(len(codes)) if len(codes) > 1 else math.inf
    return RAISEResult(float(log_prob.mean()), stderr, log_prob)

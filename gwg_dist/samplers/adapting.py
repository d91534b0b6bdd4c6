"""The warm-up of a kernel outside of training: chains run, a tuner looks, and the kernel that it finds is frozen.

Nothing here runs while something is measured.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gwg_dist.samplers.base import Sampler
from gwg_dist.samplers.run import ChainResult, run_chain
from gwg_dist.samplers.site_scales import SiteScales, scales_refusal
from gwg_dist.samplers.tuners import TUNERS, Seen, check_objective, check_target_acceptance, period, value_of
from gwg_dist.target import Target
from gwg_dist.tools.distributed import all_sum

MAX_TUNINGS = 64  # compiled steps and CUDA graphs are made anew for every kernel
STEPS_A_LOOK = 10


class Adapted(NamedTuple):
    """What a warm-up found.

    Args:
        kernel: the tuned kernel, to be kept.
        x: where the chains stand.
        values: value of the tunable field at every look, then the one that is kept; empty where there is none.
        accept_prob: mean acceptance probability over chains and steps of the last look.
    """

    kernel: Sampler
    x: Tensor
    values: tuple[float, ...]
    accept_prob: float


def adapt_kernel(
    kernel: Sampler,
    target: Target,
    x: Tensor,
    *,
    num_steps: int,
    generator: torch.Generator,
    objective: str = "acceptance",
    target_acceptance: float | None = None,
    precondition: bool = False,
    beta: float = 1.0,
    backend: str = "auto",
) -> Adapted:
    """Run chains in a warm-up that tunes the kernel; called on every rank, and all get the same kernel.

    The steps are spread over at most 64 looks of at least ten, or of a whole cycle. A look costs one evaluation more
    than its steps. A kernel with nothing to tune runs its steps and comes back as it was.

    Args:
        kernel: where the search starts.
        target: what the chains leave invariant; its weights do not change meanwhile.
        x: this rank's chains, floats ``(B, D)`` or ``(B, D, K)``; not changed.
        num_steps: kernel transitions of the warm-up.
        generator: this rank's own, on the device of ``x``.
        objective: "acceptance", "jump" or "cyclical": see ``AcceptanceTuner``, ``JumpTuner``, ``CyclicalTuner``.
        target_acceptance: acceptance to reach; the kernel's own where none is given.
        precondition: whether to find a step size for each site as well, see ``SiteScales``.
        beta: inverse temperature of the target.
        backend: see ``run_chain``.

    Raises:
        ValueError: an unknown objective, an objective or a preconditioning that is not for this kernel, fewer than one
            step, a target_acceptance outside (0, 1).
    """
    check_objective(objective)
    if num_steps < 1:
        raise ValueError(f"num_steps must be positive, got {num_steps}")
    check_target_acceptance(target_acceptance)
    tunable = kernel.tunable is not None
    tuner, base = TUNERS[objective](target_acceptance), kernel
    refusal = (tuner.refusal(base) if tunable else None) or (scales_refusal(base) if precondition else None)
    if refusal is not None:
        raise ValueError(refusal)
    kernel, scales = tuner.kernel(base, target) if tunable else kernel, SiteScales()
    looks, values, accept_prob = min(MAX_TUNINGS, max(1, num_steps // max(STEPS_A_LOOK, period(kernel)))), [], math.nan
    for look in range(looks):
        steps = num_steps * (look + 1) // looks - num_steps * look // looks
        chain = run_chain(kernel, target, x, num_steps=steps, generator=generator, beta=beta, backend=backend)
        x, seen = chain.x, seen_of(chain)
        if precondition:
            scales.observe(target, x, beta=beta)
        accept_prob = seen.accept_prob
        if tunable:
            values.append(value_of(kernel))
            if math.isfinite(accept_prob):
                tuner.observe(base, seen, target)
                base = scales.of(base)
                kernel = tuner.kernel(base, target)
    if tunable:
        kernel = tuner.frozen(base)
        values.append(value_of(kernel))
    return Adapted(kernel, x, tuple(values), accept_prob)


def seen_of(chain: ChainResult) -> Seen:
    """The means over the chains of all ranks; called on every rank."""
    sums = torch.stack([chain.accept_prob.sum(), chain.hops.sum(), torch.ones_like(chain.hops).sum()])
    accept_prob, hops, num = all_sum(sums).tolist()
    return Seen(accept_prob / num, hops / num)

"""A pilot run finds a kernel for every beta; the estimate that follows has chains of its own and adapts nothing.

Not implemented: a schedule of beta from the pilot.
"""

from __future__ import annotations

import torch

from gwg_dist.evaluation.ais import ais_start
from gwg_dist.evaluation.tuned_path import TunedPath
from gwg_dist.samplers import Sampler, Target, adapt_kernel
from gwg_dist.tools.distributed import world_size

NUM_LEVELS = 8
NUM_CHAINS = 64
SHORTEST = 10 * NUM_LEVELS  # a look at the chains for each level


def check_pilot(num_temperatures: int) -> None:
    """Raise ValueError for a pilot run that is neither none, 0, nor long enough."""
    if num_temperatures and num_temperatures < SHORTEST:
        raise ValueError(f"pilot must be 0 or at least {SHORTEST} gradient evaluations, got {num_temperatures}")


def pilot_path(
    target: Target,
    sampler: Sampler,
    *,
    generator: torch.Generator,
    num_temperatures: int = 400,
    num_chains: int | None = None,
    num_levels: int = NUM_LEVELS,
    objective: str = "acceptance",
    target_acceptance: float | None = None,
    backend: str = "auto",
) -> TunedPath:
    """Tune the kernel in the middle of each of L equal parts of [0, 1], from beta = 0 up; called on every rank.

    Chains start at the reference. In each part they make num_temperatures / L steps, in which ``adapt_kernel`` tunes
    the field from where the part before left it. The chains are thrown away. All ranks get the same path.

    Args:
        target: target that has a reference.
        sampler: kernel to tune; one with nothing to tune comes back as it is, and nothing runs.
        generator: this rank's own, on the device of the model, and not that of the estimate.
        num_temperatures: steps of a chain, each a gradient evaluation.
        num_chains: pilot chains on all ranks together; at least 64 and one a rank where none is given.
        num_levels: L.
        objective: see ``adapt_kernel``.
        target_acceptance: acceptance to reach; the kernel's own where none is given.
        backend: see ``run_chain``.

    Raises:
        ValueError: a target without a reference, fewer chains than ranks, fewer temperatures than levels, fewer than
            one level.
    """
    if num_levels < 1:
        raise ValueError(f"num_levels must be positive, got {num_levels}")
    if num_temperatures < num_levels:
        raise ValueError(f"a pilot run needs a temperature for each of its {num_levels} levels, got {num_temperatures}")
    if sampler.tunable is None:
        return TunedPath(sampler)
    x = ais_start(target, generator=generator, num_chains=num_chains or max(NUM_CHAINS, world_size())).x
    kernel, values = sampler, []
    for level in range(num_levels):
        steps = num_temperatures * (level + 1) // num_levels - num_temperatures * level // num_levels
        kernel, x, tried, _ = adapt_kernel(
            kernel, target, x, num_steps=steps, generator=generator, objective=objective,
            target_acceptance=target_acceptance, beta=(level + 0.5) / num_levels, backend=backend,
        )  # fmt: skip
        values.append(tried[-1])
    return TunedPath(sampler, tuple(values))

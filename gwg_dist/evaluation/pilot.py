"""A pilot run finds a kernel for every beta, and where the temperatures are to lie.

The estimate that follows has chains of its own and adapts nothing, so that it stays unbiased for Z.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from gwg_dist.evaluation.ais import ais_start
from gwg_dist.evaluation.annealing import anneal
from gwg_dist.evaluation.schedules import beta_schedule, even_knots, friction
from gwg_dist.evaluation.tuned_path import TunedPath
from gwg_dist.samplers import Sampler, Target, adapt_kernel
from gwg_dist.tools.distributed import gather_rows, world_size

NUM_LEVELS = 8
NUM_CHAINS = 64
NUM_BLOCKS = 40
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
    adaptive: bool = False,
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
        adaptive: also find a schedule, see ``adaptive_knots``, in as many temperatures again.
        backend: see ``run_chain``.

    Raises:
        ValueError: a target without a reference, fewer chains than ranks, fewer temperatures than levels, fewer than
            one level.
    """
    if num_levels < 1:
        raise ValueError(f"num_levels must be positive, got {num_levels}")
    if num_temperatures < num_levels:
        raise ValueError(f"a pilot run needs a temperature for each of its {num_levels} levels, got {num_temperatures}")
    num_chains = num_chains or max(NUM_CHAINS, world_size())
    path = TunedPath(sampler)
    if sampler.tunable is not None:
        values = _tuned_values(
            target, sampler, generator, num_temperatures, num_chains, num_levels, objective, target_acceptance, backend
        )
        path = TunedPath(sampler, values)
    if not adaptive:
        return path
    return replace(path, knots=adaptive_knots(target, path, generator, num_temperatures, num_chains, backend))


def _tuned_values(
    target: Target,
    sampler: Sampler,
    generator: torch.Generator,
    num_temperatures: int,
    num_chains: int,
    num_levels: int,
    objective: str,
    target_acceptance: float | None,
    backend: str,
) -> tuple[float, ...]:
    """The tuned field in the middle of each part."""
    x = ais_start(target, generator=generator, num_chains=num_chains).x
    kernel, values = sampler, []
    for level in range(num_levels):
        steps = num_temperatures * (level + 1) // num_levels - num_temperatures * level // num_levels
        kernel, x, tried, _ = adapt_kernel(
            kernel, target, x, num_steps=steps, generator=generator, objective=objective,
            target_acceptance=target_acceptance, beta=(level + 0.5) / num_levels, backend=backend,
        )  # fmt: skip
        values.append(tried[-1])
    return tuple(values)


def adaptive_knots(
    target: Target,
    path: TunedPath,
    generator: torch.Generator,
    num_temperatures: int,
    num_chains: int,
    backend: str = "auto",
) -> tuple[float, ...]:
    """The schedule on which every step dissipates the same work, as knots; the same on all ranks.

    Chains anneal from the reference along a linear schedule, and every temperature's f is noted: the increment of a log
    weight over that of beta. Its ``friction`` in 40 blocks of beta is the cost that ``even_knots`` makes even. Where a
    step draws chains anew this is a constant conditional effective sample size; where they are slow, more temperatures
    go to where they are.

    Args:
        target: target that has a reference.
        path: kernels to move the chains with.
        generator: this rank's own, on the device of the model, and not that of the estimate.
        num_temperatures: steps of a chain, each a gradient evaluation; at least 40.
        num_chains: pilot chains on all ranks together.
        backend: see ``run_chain``.
    """
    betas = beta_schedule(num_temperatures)
    point = ais_start(target, generator=generator, num_chains=num_chains)
    edges = torch.linspace(0, num_temperatures, NUM_BLOCKS + 1, dtype=torch.float64).round().long().tolist()
    means, last = [], point.log_weights
    points = anneal(target, path, point, betas, generator=generator, every=num_temperatures, look=1, backend=backend)
    for end in edges[1:]:
        while point.t < end:
            point = next(points)
        means.append((point.log_weights - last) / float(betas[end] - betas[edges[len(means)]]))
        last = point.log_weights
    f = gather_rows(torch.stack(means, 1)).cpu().T
    return tuple(even_knots(betas[edges], friction(f)).tolist())

"""The chains and random generators of all ranks, as a checkpoint holds them."""

from __future__ import annotations

from typing import Any

import torch

from gwg_dist.chains.base import ChainSource
from gwg_dist.tools.distributed import gather_rows, rank, world_size
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import make_generator


def save_chains(chains: ChainSource, generator: torch.Generator) -> dict[str, Any]:
    """The packed chains, their betas, and the state of every rank's generator; on the CPU, called on every rank."""
    state = generator.get_state()[None].to(generator.device)
    return {"packed": chains.gather(), "betas": list(chains.betas), "generators": gather_rows(state).cpu()}


def check_saved_chains(chains: ChainSource, saved: dict[str, Any]) -> None:
    """Raise InputError where a run with these chains cannot go on with what ``save_chains`` returned.

    What was saved without betas is judged by the number of chains alone.
    """
    chains.check_saved(saved["packed"])
    ours = list(chains.betas)
    if saved["packed"] is not None and saved.get("betas", ours) != ours:
        raise InputError(
            f"the checkpoint's chains do not fit this run: they are at the betas {saved['betas']}, "
            f"those of the settings at {ours}"
        )


def restore_chains(
    chains: ChainSource, saved: dict[str, Any], generator: torch.Generator, *, seed: int, iteration: int
) -> torch.Generator:
    """Take this rank's share of the chains; the generator to go on with.

    On as many ranks, on the same kind of device, that is ``generator`` in its saved state, and a run goes on bit for
    bit; otherwise a new one.

    Args:
        chains: source to restore, set up already.
        saved: what ``save_chains`` returned, on any number of ranks.
        generator: generator of this rank, on the device of the chains.
        seed: seed of the run.
        iteration: iteration that the run goes on from; it names a new generator.

    Raises:
        InputError: the saved chains do not fit.
    """
    check_saved_chains(chains, saved)
    chains.restore(saved["packed"])
    states = saved["generators"]
    if states.shape != (world_size(), len(generator.get_state())):
        return make_generator(seed, "chains resumed", rank(), world_size(), iteration, device=generator.device)
    generator.set_state(states[rank()].clone())  # set_state reads from the start of the storage
    return generator

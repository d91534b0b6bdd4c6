"""A state of a run that is kept in memory, and put back: the same on all ranks, and small enough for a checkpoint.

Not kept: the iteration, which goes on; the learning rate's schedule; the kernel that adaptation has chosen.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging

from gwg_dist.chains import restore_chains, save_chains
from gwg_dist.module import EBMModule


def keep(trainer: Trainer, module: EBMModule) -> dict[str, Any]:
    """Weights, optimizer, averages, and the chains and generators of all ranks, on the CPU; called on every rank."""
    return copied(
        {
            "iteration": trainer.global_step,
            "weights": module.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "averages": [average.state_dict() for average in averages_of(trainer)],
            "chains": save_chains(module.chains, module.generator),
        }
    )


def put_back(kept: dict[str, Any], trainer: Trainer, module: EBMModule) -> None:
    """Go on from a state that ``keep`` returned, perhaps on another number of ranks; called on every rank."""
    state = copied(kept)  # an optimizer and chains write over what they are given
    module.load_state_dict(state["weights"])
    trainer.optimizers[0].load_state_dict(state["optimizer"])
    module.schedule.apply()
    for average, saved in zip(averages_of(trainer), state["averages"], strict=False):
        average.load_state_dict(saved)
    module.generator = restore_chains(
        module.chains, state["chains"], module.generator, seed=module.seed, iteration=trainer.global_step
    )


def averages_of(trainer: Trainer) -> list[torch.nn.Module]:
    """The averaged weights of a run."""
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    found = [callback._average_model for callback in callbacks if isinstance(callback, WeightAveraging)]
    return [average for average in found if average is not None]


def copied(tree: Any) -> Any:
    """Nested dicts, lists and tuples with every tensor copied to the CPU."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(copied(value) for value in tree)
    return tree

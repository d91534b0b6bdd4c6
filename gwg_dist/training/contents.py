"""What a checkpoint holds, and whether it fits a model and a run: names, kinds and shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gwg_dist.chains import check_saved_chains
from gwg_dist.module import EBMModule
from gwg_dist.tools.errors import InputError

NAMES = {"energy": str, "space": str, "seed": int, "smoothing": float, "optimizer": str}
EVALUATED = {"gwg_dist": dict, "state_dict": dict, "chains": dict, "callbacks": dict, "global_step": int}
RESUMED = {
    "current_model_state": dict,
    "averaging_state": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "epoch": int,
}


def check_checkpoint(checkpoint: dict[str, Any], module: EBMModule) -> None:
    """Raise InputError unless the checkpoint holds the weights of this very architecture."""
    if "gwg_dist" not in checkpoint:
        raise InputError("the checkpoint was not written by gwg_dist")
    _check_kinds(checkpoint, EVALUATED)
    name = checkpoint["gwg_dist"]
    _check_kinds(name, NAMES)
    _check_kinds(checkpoint["chains"], {"packed": Tensor | None, "generators": Tensor})
    expected = {"energy": type(module.energy).__name__, "space": repr(module.space)}
    found = {key: name[key] for key in expected}
    if found != expected:
        raise InputError(
            f"the checkpoint is of {found['energy']} on {found['space']}, "
            f"but this run is of {expected['energy']} on {expected['space']}"
        )
    _check_weights(checkpoint["state_dict"], module)


def check_resumable(checkpoint: dict[str, Any], module: EBMModule) -> None:
    """Raise InputError unless training can go on from the checkpoint with these settings."""
    check_checkpoint(checkpoint, module)
    _check_kinds(checkpoint, RESUMED)
    _check_weights(checkpoint["current_model_state"], module)
    name = checkpoint["gwg_dist"]
    optimizer = module.new_optimizer()
    for setting, ours in (("smoothing", module.reference.smoothing), ("optimizer", type(optimizer).__name__)):
        if name[setting] != ours:
            raise InputError(
                f"a resumed run keeps its {setting}: {name[setting]} in the checkpoint, {ours} in the settings"
            )
    _check_optimizer(checkpoint["optimizer_states"], optimizer)
    _check_chains(checkpoint["chains"], module)


def _check_kinds(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, kind in expected.items():
        if key not in found:
            raise InputError(f"the checkpoint is incomplete: it has no {key}")
        if not isinstance(found[key], kind):
            raise InputError(f"the checkpoint is damaged: {key} is of type {type(found[key]).__name__}")


def _check_weights(weights: dict[str, Any], module: EBMModule) -> None:
    ours = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    theirs = {key: tuple(getattr(value, "shape", ())) for key, value in weights.items()}
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise InputError(
                f"the checkpoint is of another model: {key} has shape {theirs.get(key, 'none')} there "
                f"and {ours.get(key, 'none')} in this run"
            )


def _check_optimizer(states: list[Any], optimizer: torch.optim.Optimizer) -> None:
    """Moments are tensors like the parameters, or of sums of them."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        (state,) = states
        optimizer.load_state_dict(state)
        moments = [(parameter, optimizer.state[parameter]) for parameter in parameters]
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"the checkpoint is of another model: its optimizer does not fit ({error})") from error
    for number, (parameter, held) in enumerate(moments):
        for key, value in held.items():
            if isinstance(value, Tensor) and not _spreads(value, parameter):
                raise InputError(
                    f"the checkpoint is of another model: {key} of the optimizer has shape {tuple(value.shape)} there, "
                    f"and parameter {number} has {tuple(parameter.shape)} in this run"
                )


def _spreads(value: Tensor, parameter: Tensor) -> bool:
    shape = parameter.shape[len(parameter.shape) - value.ndim :]
    return value.ndim <= parameter.ndim and all(a in (1, b) for a, b in zip(value.shape, shape, strict=True))


def _check_chains(chains: dict[str, Any], module: EBMModule) -> None:
    packed = chains["packed"]
    if packed is not None:
        ours = module.space.pack(torch.zeros(1, module.space.num_sites, dtype=module.space.code_dtype))
        if packed.shape[1:] != ours.shape[1:] or packed.dtype != ours.dtype or packed.ndim != ours.ndim:
            raise InputError(
                f"the checkpoint's chains are no points of {module.space}: "
                f"{packed.dtype} of shape {tuple(packed.shape)}"
            )
    check_saved_chains(module.chains, chains)

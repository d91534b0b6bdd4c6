"""A run's model as one file of plain tensors and text: safetensors or .npz; nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gwg_dist.data.files import UNREADABLE, existing, read_arrays
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import replacing

FORMAT = "gwg_dist 1"
SAMPLES, TEXTS = "samples", ("format", "config", "model", "iteration", "alphabet", "adaptation", "results")
NEEDED = ("format", "config", "model", "iteration")
EXTRA = "safetensors needs a package more: pip install 'gwg_dist[safetensors]'"


class ModelFile(NamedTuple):
    """What a model file holds.

    Args:
        weights: the state of the module by name: the energy's weights and the reference.
        samples: codes ``(N, D)`` of equilibrium samples; None where there are none.
        texts: "format"; "config", the run's settings as YAML; "model", what tells whether a checkpoint fits, as JSON;
            "iteration"; and what else is known: "alphabet", "adaptation" and "results".
    """

    weights: dict[str, Tensor]
    samples: Tensor | None
    texts: dict[str, str]


def write_model(path: Path, model: ModelFile) -> None:
    """Write .safetensors or .npz. Raises InputError for another suffix, or where safetensors is not installed."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.weights.items()}
    if model.samples is not None:
        tensors[SAMPLES] = model.samples.cpu().contiguous()
    with replacing(path) as beside:
        if path.suffix == ".npz":
            arrays: dict[str, Any] = {name: np.array(text) for name, text in model.texts.items()}
            arrays |= {name: tensor.numpy() for name, tensor in tensors.items()}
            with open(beside, "wb") as file:
                np.savez(file, **arrays)
            return
        try:
            from safetensors.torch import save_file
        except ImportError as error:
            raise InputError(EXTRA) from error
        save_file(tensors, beside, metadata=model.texts)


def read_model(path: str | Path) -> ModelFile:
    """What ``write_model`` wrote. Raises InputError for a file that is damaged, or of another origin."""
    path = existing(path, "file")
    tensors, texts = _arrays(path) if path.suffix == ".npz" else _safetensors(path)
    missing = [name for name in NEEDED if name not in texts]
    if missing or texts["format"] != FORMAT:
        raise InputError(f"file: {path} was not written by gwg_dist export: it has no {', '.join(missing) or FORMAT}")
    samples = tensors.pop(SAMPLES, None)
    return ModelFile(tensors, samples, texts)


def read_json(model: ModelFile, name: str) -> Any:
    """A text of the file as JSON. Raises InputError where it is none."""
    try:
        return json.loads(model.texts[name])
    except ValueError as error:
        raise InputError(f"file: its {name} is damaged: {error}") from error


def _arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    arrays = read_arrays(path, "file")
    texts = {name: str(array) for name, array in arrays.items() if name in TEXTS}
    try:
        return {name: torch.from_numpy(array) for name, array in arrays.items() if name not in texts}, texts
    except TypeError as error:
        raise InputError(f"file: {path} was not written by gwg_dist export: {error}") from error


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError(EXTRA) from error
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, *UNREADABLE) as error:
        raise InputError(f"file: {path} is damaged or no safetensors file: {error}") from error

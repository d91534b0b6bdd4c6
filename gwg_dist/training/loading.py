"""A model out of a run's folder, as evaluation and sampling want it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import ArgumentError

from gwg_dist.callbacks import adapt
from gwg_dist.data import DiscreteData
from gwg_dist.module import EBMModule
from gwg_dist.tools.errors import InputError
from gwg_dist.training.checkpoints import newest_checkpoint
from gwg_dist.training.contents import check_checkpoint
from gwg_dist.training.folder import CONFIG, find_checkpoint
from gwg_dist.training.settings import build_parser, instantiate


class LoadedRun(NamedTuple):
    """A model out of a run folder, on its device, with the weights to evaluate."""

    module: EBMModule
    data: DiscreteData
    checkpoint: dict[str, Any]
    path: Path


def load_run(run: str | Path, checkpoint: str = "best", *, device: str | None = None, trust: str = "") -> LoadedRun:
    """Rebuild the model of a run, and the kernel that it adapted, from its config and one of its checkpoints.

    Args:
        run: folder of the run.
        checkpoint: "best", "last", or the path of a file.
        device: "cpu", "cuda", "cuda:1", ...; a CUDA device where there is one.
        trust: modules outside gwg_dist whose classes the run's settings may name, with commas between; "*" for all.

    Raises:
        InputError: no run there, a class that is not trusted, a checkpoint that is missing, damaged or of another
            model.
    """
    folder = Path(run)
    config_path = folder / CONFIG
    if not config_path.is_file():
        raise InputError(f"{folder} is no run folder: it has no {CONFIG}")
    path = find_checkpoint(folder, checkpoint)
    parser = build_parser()
    parser.exit_on_error = False
    try:
        config = parser.parse_args(["--config", str(config_path), f"--trust={trust}"])
    except ArgumentError as error:
        raise InputError(f"{config_path}: {parser.explain(str(error))}") from error
    objects = instantiate(parser, config)
    module: EBMModule = objects.model
    path, contents = newest_checkpoint(path)
    load_weights(module, contents)
    adapt(module, contents)
    module.seed = contents["gwg_dist"]["seed"]
    try:
        module.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {device} cannot be used: {str(error).splitlines()[0]}") from error
    return LoadedRun(module, objects.data, contents, path)


def load_weights(module: EBMModule, checkpoint: dict[str, Any]) -> None:
    """Take the weights that evaluation reads. Raises InputError where they are of another model."""
    check_checkpoint(checkpoint, module)
    module.load_state_dict(checkpoint["state_dict"])

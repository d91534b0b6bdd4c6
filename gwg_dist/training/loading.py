"""A model out of a run's folder, as evaluation and sampling want it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import ArgumentError
from torch import Tensor

from gwg_dist.callbacks import adapt
from gwg_dist.data import DiscreteData, Splits
from gwg_dist.data.base import class_name
from gwg_dist.data.paths import class_of
from gwg_dist.module import EBMModule
from gwg_dist.spaces import Space, read_space
from gwg_dist.tools.commands import subclasses
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.terminal import say
from gwg_dist.training.checkpoints import newest_checkpoint
from gwg_dist.training.contents import check_checkpoint
from gwg_dist.training.folder import CONFIG, find_checkpoint
from gwg_dist.training.settings import build_parser, instantiate, instantiate_data


class LoadedRun(NamedTuple):
    """A model out of a run folder, on its device, with the weights to evaluate."""

    module: EBMModule
    data: DiscreteData
    checkpoint: dict[str, Any]
    path: Path


def load_run(run: str | Path, checkpoint: str = "best", *, device: str | None = None, trust: str = "") -> LoadedRun:
    """Rebuild the model of a run, and the kernel that it adapted, from its config and one of its checkpoints.

    The data are not read before somebody asks for points, and need not be there until then.

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
    path, contents = newest_checkpoint(path)
    batch_size = config.data.get("init_args.batch_size") or 1
    space = stored_space(contents)
    kept = contents["gwg_dist"].get("data", {})
    kind = _kind_named(kept.get("class", "")) or class_of(config.data)
    words = _words(kept, kind, space)
    data = _DataOfRun(words, kept, lambda: instantiate_data(parser, config), batch_size=batch_size)
    data.beside, data.has_lines, data.is_aligned = kind.beside, kind.has_lines, kind.is_aligned
    objects = instantiate(parser, config, data=data)
    module: EBMModule = objects.model
    load_weights(module, contents)
    adapt(module, contents)
    module.seed = contents["gwg_dist"]["seed"]
    try:
        module.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {device} cannot be used: {str(error).splitlines()[0]}") from error
    return LoadedRun(module, data, contents, path)


class _DataOfRun(DiscreteData):
    """The data of a run that are read when somebody asks for points; their file may be gone until then.

    Args:
        words: a data set without points in the space of the run's model that knows what ``kept`` says.
        kept: what the checkpoint keeps of the data set; empty where it is from before it kept anything.
        make: makes the data set that the run's settings name.
        batch_size: points in an iteration, on all ranks together.
    """

    def __init__(
        self, words: DiscreteData, kept: dict[str, Any], make: Callable[[], DiscreteData], *, batch_size: int
    ) -> None:
        super().__init__(words.space, batch_size=batch_size)
        self._make = make
        self._made: DiscreteData | None = None
        self._words, self._kept = words, kept
        self._read_by: DiscreteData | None = None

    def prepare_data(self) -> None:
        self._data().prepare_data()

    def load(self) -> Splits:
        return self._data().splits

    def encode_file(self, path: str | Path, *, missing_as: int | None = None) -> tuple[Tensor, list[str]]:
        """As the run's own data set reads it, or, where that is gone, as the checkpoint knows it."""
        return self._reader().encode_file(path, missing_as=missing_as)

    @property
    def writes(self) -> tuple[str, ...]:
        return self._reader().writes

    def write_file(self, path: str | Path, codes: Tensor, names: Sequence[str]) -> None:
        self._reader().write_file(path, codes, names)

    @property
    def distances(self) -> Tensor | None:
        return self._reader().distances

    @property
    def reference(self) -> str | None:
        return self._reader().reference

    @property
    def columns(self) -> Tensor:
        return self._reader().columns

    def blanks(self) -> Tensor:
        return self._reader().blanks()

    def point_names(self, split: str) -> list[str]:
        return self._data().point_names(split)

    def site_names(self) -> list[str]:
        return self._reader().site_names()

    def category_names(self) -> list[list[str]]:
        return self._reader().category_names()

    def lines(self, codes: Tensor) -> list[str]:
        return self._reader().lines(codes)

    def _reader(self) -> DiscreteData:
        """The data set itself; where its file is gone, or has other words by now, what the checkpoint keeps of it."""
        if self._read_by is None:
            try:
                self._read_by = made = self._data()
                if self._kept and self._kept != made.kept():
                    if self._kept["class"] == class_name(type(made)):
                        say("the words of the run's data have changed: those that the run learnt from are taken")
                    self._read_by = self._words
            except InputError as error:
                known = any(value is not None for key, value in self._kept.items() if key != "class")
                how = "as the run's checkpoint knows them" if known else "as codes"
                say(f"{error}; points are read and written {how}")
                self._read_by = self._words
        return self._read_by

    def __getattr__(self, name: str) -> Any:
        """What only the data set itself knows, such as the couplings of ``IsingSamples``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._data(), name)

    def _data(self) -> DiscreteData:
        """Raises InputError where the data are gone, or have become others."""
        if self._made is None:
            made = self._make()
            if made.space != self.space:
                raise InputError(f"the data are in {made.space} by now, but the run's model is for {self.space}")
            self._made = made
        return self._made


def _kind_named(name: str) -> type[DiscreteData] | None:
    """The class of data of this name, where it has been imported."""
    return next((kind for kind in subclasses(DiscreteData) if class_name(kind) == name), None)


def _words(kept: dict[str, Any], kind: type[DiscreteData], space: Space) -> DiscreteData:
    """A data set without points out of what a checkpoint keeps. Raises InputError where that is damaged."""
    if not kept:
        return DiscreteData.of_kept(space, kept)
    try:
        return kind.of_kept(space, kept)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the checkpoint is damaged: what it keeps of the data cannot be read: {error}") from error


def stored_space(checkpoint: dict[str, Any]) -> Space:
    """The space of the model in a checkpoint. Raises InputError where it has none."""
    try:
        return read_space(checkpoint["gwg_dist"]["space"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("the checkpoint was not written by gwg_dist") from error


def load_weights(module: EBMModule, checkpoint: dict[str, Any]) -> None:
    """Take the weights that evaluation reads. Raises InputError where they are of another model."""
    check_checkpoint(checkpoint, module)
    module.load_state_dict(checkpoint["state_dict"])

"""A path in place of the name of a data set: ``gwg_dist fit my.npz``."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from jsonargparse import Namespace

from gwg_dist.data.base import FOLDER, DiscreteData
from gwg_dist.data.files import existing
from gwg_dist.tools.commands import subclasses
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.shipped import config_names

OPTION, CONFIGS = "--data", ("--config", "-c")


def named_data(args: list[str], takes_value: Callable[[str], bool]) -> list[str]:
    """``args`` with a path, alone or after --data, replaced by the class that reads it and its settings.

    They come after a config, whose data they replace, and before the other settings.

    Args:
        args: a command line.
        takes_value: whether an option is followed by its value; what follows one is no path of data.

    Raises:
        InputError: no such file, one of a kind that nothing reads, more than one.
    """
    rest: list[str] = []
    paths, names, place, after_config = [], [], 0, 0
    while place < len(args):
        arg, place = args[place], place + 1
        option, equals, value = arg.partition("=")
        given = [arg]
        follows = next(iter(args[place : place + 1]), "--")
        if arg.startswith("-") and not equals and takes_value(option) and not follows.startswith("--"):
            given, value, place = [arg, follows], follows, place + 1
        if not arg.startswith("-"):
            paths.append(arg)
        elif option == OPTION and is_path(value):
            paths.append(value)
        else:
            rest += given
            names += [f"{OPTION}={value}"] if option == OPTION else []
            after_config = len(rest) if option in CONFIGS else after_config
    if len(paths) + (len(names) if paths else 0) > 1:
        raise InputError(f"give the data once, got {' and '.join([*paths, *names])}")
    data = [f"{OPTION}{key}={value}" for path in paths for key, value in settings_for(path).items()]
    return [*rest[:after_config], *data, *rest[after_config:]]


def is_path(value: str) -> bool:
    """Whether what follows --data is a file or a folder and not the name of a class."""
    if not value or value.startswith(("{", "[")):
        return False
    if "/" in value or value.startswith("~") or value.lower().endswith(tuple(suffixes())):
        return True
    return Path(value).exists() and value not in {cls.__name__ for cls in subclasses(DiscreteData)}


def settings_for(path: str) -> dict[str, str]:
    """The class that reads a file or a folder, and where that is, as parts of keys. Raises InputError."""
    there = Path(path).expanduser()
    if path in config_names("experiment") and not there.exists():
        raise InputError(f"data: there is no file {path} (did you mean --config {path}?)")
    if not there.is_dir():
        existing(there, OPTION.strip("-"))
    cls = _reader(there)
    if cls is None:
        known = ", ".join(suffix for suffix in suffixes() if suffix.count(".") == 1)
        raise InputError(f"data: {path} is of no kind that is read: {known}, or a folder of images")
    return {"": cls.__name__, ".path": absolute(path)}


def _reader(path: Path) -> type[DiscreteData] | None:
    """The class that knows the content of a file, or else the one that its suffix is a source of."""
    classes = list(subclasses(DiscreteData))
    if path.is_dir():
        return next((cls for cls in classes if FOLDER in cls.sources), None)
    sources = [cls for cls in classes if any(path.name.lower().endswith(source) for source in cls.sources)]
    return next((cls for cls in classes if cls.reads(path)), next(iter(sources), None))


def suffixes() -> list[str]:
    """The suffixes of files that some data set reads; those of classes with few of them come first."""
    classes = sorted(subclasses(DiscreteData), key=lambda cls: len(cls.sources))
    found = [source for cls in classes for source in cls.sources if source != FOLDER]
    return list(dict.fromkeys(found))


def with_absolute_paths(spec: Namespace) -> None:
    """Make the paths in the settings of a data set absolute."""
    settings = spec.get("init_args") or {}
    for key in class_of(spec).paths:
        if settings.get(key) is not None:
            settings[key] = absolute(settings[key])


def class_of(spec: Namespace) -> type[DiscreteData]:
    """The class that the settings of a data set name."""
    module, _, name = spec.class_path.rpartition(".")
    return getattr(import_module(module), name)


def absolute(path: str) -> str:
    """A path that stays the same wherever a program is started."""
    return os.path.abspath(Path(path).expanduser())

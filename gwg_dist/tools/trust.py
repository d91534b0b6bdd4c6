"""Which classes settings may name: a YAML file or a run's folder is code as soon as it names a class to import.

Settings build the classes of this package, the optimizers of torch and the parts of Lightning's trainer. Any other
class is imported where the user says so: typed as a value on the command line, or its module given by ``--trust``. A
file cannot give ``--trust``. What belongs to Python itself is never built from settings.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, _common, set_parsing_settings

from gwg_dist.tools.errors import InputError

OPTION, EVERYTHING = "--trust", "*"
OUR_PARTS = ("data", "spaces", "energies", "samplers", "chains", "objectives", "callbacks", "compare")
OURS = (
    *(f"gwg_dist.{part}" for part in OUR_PARTS),
    "torch.optim",
    *(f"lightning.pytorch.{part}" for part in ("accelerators", "callbacks", "loggers", "profilers", "strategies")),
    *(f"lightning.{part}.plugins" for part in ("pytorch", "fabric")),
)
HELP = "modules outside gwg_dist whose classes files of settings may name, with commas between; --trust alone: all"
NOT_OURS = ("lightning.pytorch.callbacks.LambdaCallback", "lightning.pytorch.callbacks.lambda_function")
PLACES = ("config", "c", "run_dir", "ckpt_path", "resume", "sweep_dir", "experiment")  # options whose values name files
NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
CLASS_PATH = re.compile(rf"""class_path['"]?\s*:\s*['"]?({NAME.pattern})""")  # in a value typed as JSON or YAML

_within: ContextVar[bool] = ContextVar("within", default=False)


def split(args: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The arguments without ``--trust`` (all modules) and ``--trust=MODULE,...``, and what these name.

    Raises InputError for what is not the name of a module, or names a part of Python itself.
    """
    rest, found = list[str](), list[str]()
    for arg in args:
        option, equals, value = arg.partition("=")
        if option != OPTION:
            rest.append(arg)
        else:
            found += modules(value) if equals else [EVERYTHING]
    return rest, tuple(dict.fromkeys(found))


def modules(text: str) -> tuple[str, ...]:
    """The modules in ``a,b.c``; "" names none, "*" all. Raises InputError for what cannot be trusted."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in found:
        if name != EVERYTHING and not all(part.isidentifier() for part in name.split(".")):
            raise InputError(f"trust: give modules by their import path, such as my_energy, got {name!r}")
        if of_python(name):
            raise InputError(f"trust: {name} belongs to Python itself, which holds no class of a run")
    return found


def typed(args: Sequence[str]) -> tuple[str, ...]:
    """The packages of the classes that the values of these options name: what the user typed, the user trusts."""
    found, waiting = list[str](), ""
    for arg in args:
        name, equals, value = arg.partition("=")
        if name.startswith("-"):
            option, waiting = name.lstrip("-"), "" if equals else name.lstrip("-")
        else:
            option, value, waiting = waiting, arg, ""
        if option and option not in PLACES and not _is_path(value):
            found += [value] if NAME.fullmatch(value) else CLASS_PATH.findall(value)
    return tuple(dict.fromkeys(_package(path) for path in found if not (_is_ours(path) or of_python(path))))


@contextlib.contextmanager
def allowing(trusted: Iterable[str]) -> Iterator[None]:
    """Within it settings build our classes and those of the modules ``trusted``; within another, that one holds."""
    if _within.get():
        yield
        return
    trusted = list(trusted)
    before, token = dict(_common.parsing_settings), _within.set(True)
    denied = [name for name in NOT_OURS if _package(name) not in trusted]
    denied += [] if EVERYTHING in trusted else [EVERYTHING]
    allowed = [*OURS, *(name for name in trusted if name != EVERYTHING)]
    try:
        set_parsing_settings(
            import_path_denylist=denied, import_path_allowlist=allowed, instantiate_subclass_spec_in_any=False
        )
        yield
    finally:
        _common.parsing_settings.update(before)
        _within.reset(token)


def option_for(config: Namespace | Mapping[str, Any]) -> str:
    """What a command line needs behind it to open the same settings again; "" where all classes are ours."""
    return option(dict.fromkeys([*modules(config.get("trust", "")), *foreign(config)]))


def option(names: Iterable[str]) -> str:
    """What a command line needs behind it to trust these modules; "" for none."""
    text = ",".join(names)
    return f" {OPTION}={text}" if text else ""


def foreign(settings: Any) -> list[str]:
    """The packages that are not ours of the classes that resolved settings name."""
    found = list[str]()
    if isinstance(settings, Namespace):
        settings = settings.as_dict()
    if isinstance(settings, Mapping):
        path = settings.get("class_path")
        if isinstance(path, str) and not _is_ours(path):
            found.append(_package(path))
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        found += [name for value in settings for name in foreign(value)]
    return found


def explained(message: str) -> str | None:
    """The one line for a class that was not imported, out of the parser's message; None where that is no such one."""
    denied = re.search(r"Importing '([\w.]+)' is not allowed, denied by", message)
    if denied is None:
        return None
    path, key = denied[1], re.search(r"""key ['"]([\w.+]+)['"]""", message)
    where = f"{key[1]}: " if key else ""
    if of_python(path):
        return f"{where}{path} belongs to Python itself and is never built from settings"
    return (
        f"{where}{path} is no class of gwg_dist and would be imported: "
        f"add {OPTION}={_package(path)} where you trust that code"
    )


def of_python(path: str) -> bool:
    """Whether an import path begins with a module of Python's own library."""
    return _package(path) in sys.stdlib_module_names


def _package(path: str) -> str:
    return path.partition(".")[0]


def _is_ours(path: str) -> bool:
    return path.startswith(tuple(f"{ours}." for ours in OURS))


def _is_path(value: str) -> bool:
    try:
        return Path(value).exists()
    except OSError:  # longer than a path can be
        return False

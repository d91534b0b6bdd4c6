"""Whether a file can be one of settings, looked at before anything is built from it.

YAML is text whose aliases may stand for more than a memory holds: ten lines of ten references to the line above are
10^10 values. So size, depth and references are bounded.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from gwg_dist.tools.errors import InputError

MAX_BYTES, MAX_DEPTH, MAX_ALIASES = 1 << 20, 40, 20
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_settings_file(path: str | Path, name: str, *, keys: bool) -> None:
    """Raise InputError, which names the option ``name``, unless the file is YAML of a size that settings have.

    Args:
        path: a file that exists.
        name: option that it was given by, for messages.
        keys: whether the file must hold keys with values.
    """
    where = f"{name}: {path}"
    text = _text(path, where)
    try:
        _check_events(text, where)
        contents = yaml.load(text, LOADER)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # a ValueError is of a date or number that is none
        raise InputError(f"{where} is no YAML of settings: {_problem(error)}") from error
    if contents is None:
        raise InputError(f"{where} is empty; see --print_config for what may stand there")
    if keys and not isinstance(contents, dict):
        raise InputError(f"{where} must hold settings as key: value, got a {type(contents).__name__}")


def _text(path: str | Path, where: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{where} is longer than {MAX_BYTES >> 20} MiB, which settings never are")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{where} is no text in UTF-8: line {line} holds the byte 0x{raw[error.start]:02x}") from error


def _check_events(text: str, where: str) -> None:
    depth = aliases = 0
    for event in yaml.parse(text, LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > MAX_DEPTH:
            raise InputError(f"{where} is nested more than {MAX_DEPTH} deep, which settings never are")
        if aliases > MAX_ALIASES:
            raise InputError(f"{where} has more than {MAX_ALIASES} aliases (*name), which may stand for any size")


def _problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    text = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return place + " ".join(str(text).split())

"""What a resumed run does otherwise than before: the settings that differ from those in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def changes(text: str, path: Path) -> list[str]:
    """A line for every setting of the YAML ``text`` that the file at ``path`` holds with another value."""
    try:
        before = _flat(yaml.safe_load(path.read_text()))
    except (OSError, ValueError, yaml.YAMLError):  # nothing to compare with
        return []
    now = _flat(yaml.safe_load(text))
    both = [key for key in now if key in before]
    return [f"{key} is {now[key]} from here on, it was {before[key]}" for key in both if now[key] != before[key]]


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys, as they are typed."""
    if not isinstance(values, dict):
        return {prefix.removesuffix("."): values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, prefix if key in ("init_args", "class_path") else f"{prefix}{key}.")
    return found

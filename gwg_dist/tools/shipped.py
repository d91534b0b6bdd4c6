"""The YAML files that ship with the package, by name: ``--config digits`` in place of a path."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "configs"


def config_names(kind: str) -> list[str]:
    """The names of the shipped files of a group: "experiment", "sweep", or a fragment's, such as "evaluation"."""
    return sorted(path.stem for path in (FOLDER / kind).rglob("*.yaml"))


def config_path(name: str, kind: str) -> str:
    """The path of the shipped file of this name; ``name`` itself where that is a file, or there is none.

    The group may stand before the name: "compare/potts" and "potts" are the same among the files of "compare".
    """
    if Path(name).is_file():
        return name
    wanted = name.removeprefix(f"{kind}/")
    return next((str(path) for path in sorted((FOLDER / kind).rglob("*.yaml")) if path.stem == wanted), name)

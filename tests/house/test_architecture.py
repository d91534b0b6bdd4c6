"""The floors: imports point down, siblings do not know each other, samplers need torch alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import gwg_dist

PACKAGE = Path(gwg_dist.__file__).parent
FLOORS = [set(line.split("  ")[0].split(", ")) for line in re.findall(r"^    (\S.*)$", gwg_dist.__doc__ or "", re.M)]
MAY_IMPORT = {
    "lightning": {"data", "module", "callbacks", "training", "tune", "doctor", "launch"},
    "ray": {"tune"},
    "rich": {"tools", "callbacks", "training", "tune", "bench", "compare", "doctor"},
}


def imports() -> list[tuple[str, str, Path]]:
    """(part, part it imports, file) for every import of the package's own parts."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [
                    f"{node.module}.{alias.name}" if node.module == "gwg_dist" else node.module for alias in node.names
                ]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found += [(part, name.split(".")[1], path) for name in names if name.startswith("gwg_dist.")]
    return [(a, b, path) for a, b, path in found if a != b]


def name_of(path: Path) -> str:
    """gwg_dist.room.file, or gwg_dist.room for what its ``__init__`` holds."""
    return ".".join(["gwg_dist", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def imported_files(path: Path, files: dict[str, Path]) -> set[str]:
    """The package's files that a file imports; a room's ``__init__`` counts for those who import from the room."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gwg_dist."):
            parts = {f"{node.module}.{alias.name}" for alias in node.names} & files.keys()
            found |= parts or {node.module}
    return found


def test_every_part_has_a_floor() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}
    parts = modules | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts == set().union(*FLOORS)
    assert len(parts) == sum(map(len, FLOORS)), "a part has two floors"


def test_imports_point_down() -> None:
    floor = {part: number for number, parts in enumerate(FLOORS) for part in parts}
    wrong = [f"{path.name}: {a} imports {b}" for a, b, path in imports() if floor[b] <= floor[a]]
    assert wrong == []
    assert len(imports()) > 50


def test_no_circles_between_files() -> None:
    """Also within a room, and where an import waits inside a function."""
    files = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    below = {name: imported_files(path, files) - {name} for name, path in files.items()}
    while leaves := {name for name, names in below.items() if not names & below.keys()}:
        below = {name: names for name, names in below.items() if name not in leaves}
    assert below == {}


def test_heavy_libraries_stay_in_their_rooms() -> None:
    for library, rooms in MAY_IMPORT.items():
        found = {
            path.relative_to(PACKAGE).parts[0].removesuffix(".py")
            for path in PACKAGE.rglob("*.py")
            if re.search(rf"^\s*(from|import) {library}\b", path.read_text(), re.M)
        }
        assert found <= rooms, library


def test_samplers_need_torch_alone() -> None:
    code = (
        "import sys; from gwg_dist.samplers import GWG, Target, run_chain; "
        "print([m for m in ('lightning', 'torchmetrics', 'sklearn', 'ray', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 420} == {}

"""The floors: imports point down, siblings do not know each other, samplers need torch alone."""

import ast
import subprocess
import sys
from pathlib import Path

import gwg_dist

PACKAGE = Path(gwg_dist.__file__).parent
FLOORS = [
    {"tools"},
    {"draws", "batch", "updates"},
    {"spaces"},
    {"structure", "reference"},
    {"target"},
    {"energies", "samplers"},
    {"chains", "objectives", "evaluation", "data", "pictures"},
    {"module", "callbacks", "checkpoints", "strategy", "testing"},
    {"cli"},
    {"runs", "trainer"},
    {"fit"},
    {"evaluate", "sample", "bench", "launch", "tune", "doctor"},
    {"__main__"},
]
# On two floors some parts build on others of the same floor.
SIDEWAYS = {("callbacks", "module"), ("callbacks", "strategy"), ("checkpoints", "callbacks")}


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


def test_every_part_has_a_floor() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}
    parts = modules | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert parts == set().union(*FLOORS)


def test_imports_point_down() -> None:
    floor = {part: number for number, parts in enumerate(FLOORS) for part in parts}
    wrong = [
        f"{path.name}: {a} imports {b}"
        for a, b, path in imports()
        if floor[b] > floor[a] or (floor[b] == floor[a] and (a, b) not in SIDEWAYS)
    ]
    assert wrong == []
    assert len(imports()) > 50


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

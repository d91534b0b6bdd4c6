"""The image without a container engine: its files are consistent, and its RUN lines build a working installation."""

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from gwg_dist.training.settings import build_parser
from tests.conftest import ROOT

DOCKERFILE = ROOT / "docker/Dockerfile"
COMPOSE = ROOT / "docker/compose.yaml"
TORCH = f"torch=={importlib.metadata.version('torch')}"
RECORDED = ("apt-get", "useradd", "chown")  # what needs a container of its own


class Instruction(NamedTuple):
    keyword: str
    rest: str


def instructions() -> list[Instruction]:
    """The Dockerfile without comments, a line an instruction."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def arguments(keyword: str) -> list[str]:
    return [rest for name, rest in instructions() if name == keyword]


def copied() -> list[tuple[list[str], str]]:
    """(sources, destination) of every COPY."""
    return [(words[:-1], words[-1]) for words in map(shlex.split, arguments("COPY"))]


def sent(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last pattern that fits a part of it decides."""
    result = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!").removeprefix("**/")
        if line.startswith("#") or not pattern:
            continue
        parts = path.split("/")
        anywhere = line.startswith("**/") and pattern in parts
        if pattern == "*" or anywhere or parts[: len(pattern.split("/"))] == pattern.split("/"):
            result = line.startswith("!")
    return result


def test_hadolint_finds_nothing() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed")
    result = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("path", [*sorted((ROOT / "docker").iterdir()), ROOT / ".dockerignore"], ids=lambda p: p.name)
def test_no_address_of_a_host(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert re.findall(r"\b[\w-]+\.(?:com|org|io|net|dev)\b", text) == []


def test_what_is_copied_is_there_and_is_sent() -> None:
    sources = [source for names, _ in copied() for source in names]
    assert {"pyproject.toml", "gwg_dist", "configs", "launch"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists() or not sent(source)] == []
    kept_out = (
        "runs/x",
        "data/x",
        ".git/config",
        "tests/support/runs.py",
        "gwg_dist/__pycache__/x.pyc",
        ".venv/bin/python",
    )
    assert [path for path in kept_out if sent(path)] == []
    assert sent("gwg_dist/samplers/native/kernels.c")


def test_an_edit_of_the_code_does_not_install_torch_again() -> None:
    """Before the line that installs dependencies, the metadata alone is copied; after it, nothing asks for others."""
    lines = instructions()
    installs = [n for n, (name, rest) in enumerate(lines) if name == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    before = [rest for name, rest in lines[: installs[0]] if name == "COPY"]
    assert before == ["pyproject.toml ./"]
    assert "--constraint" in lines[installs[0]].rest
    assert "--no-deps" in lines[installs[1]].rest


def test_temporary_files_of_the_build_stay_out_of_the_runs() -> None:
    """The image's TMPDIR is set after the last RUN, and is a folder that one of them made."""
    lines = instructions()
    (set_at,) = (n for n, (name, rest) in enumerate(lines) if name == "ENV" and "TMPDIR=" in rest)
    assert [rest for name, rest in lines[set_at:] if name == "RUN"] == []
    assert f"mkdir -p {lines[set_at].rest.removeprefix('TMPDIR=')} " in " ".join(arguments("RUN"))


def test_the_command_is_a_module_and_no_shell_is_between() -> None:
    (entry,), (command,) = arguments("ENTRYPOINT"), arguments("CMD")
    assert json.loads(entry) == ["python", "-m"]
    (module,) = json.loads(command)
    assert importlib.util.find_spec(module) is not None
    assert arguments("USER") == ["10001"]


# -- two nodes --------------------------------------------------------------------------------------------------------


def services() -> dict[str, dict]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


@pytest.mark.parametrize("name", services())
def test_a_service_is_built_and_started_from_what_is_here(name: str) -> None:
    service = services()[name]
    context = COMPOSE.parent / service["build"]["context"]
    assert (context / service["build"]["dockerfile"]).samefile(DOCKERFILE)
    assert set(service["build"].get("args", {})) <= {rest.split("=")[0] for rest in arguments("ARG")}
    (script,) = service["entrypoint"]
    assert os.access(ROOT / script, os.X_OK)
    assert {"launch"} <= {source for sources, _ in copied() for source in sources}
    text = (ROOT / script).read_text()
    assert [key for key in service.get("environment", {}) if f"{{{key}:-" not in text] == []
    config = build_parser().parse_args(service["command"])
    assert Path(config.run_dir).parts[0] == "runs"
    assert config.ckpt_path == "last", "a node that comes back goes on"
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    assert [volume for volume in service["volumes"] if volume.split(":")[0] not in volumes] == []
    assert "runs:/app/runs" in service["volumes"]


def test_nodes_fit_together() -> None:
    nodes = {name: service for name, service in services().items() if not service.get("profiles")}
    environments = [service["environment"] for service in nodes.values()]
    assert [environment["NODE_RANK"] for environment in environments] == [str(n) for n in range(len(nodes))]
    assert {environment["NODES"] for environment in environments} == {str(len(nodes))}
    first = next(name for name, service in nodes.items() if service["environment"]["NODE_RANK"] == "0")
    assert {environment["MASTER_ADDR"] for environment in environments} == {first}
    assert {service["restart"] for service in nodes.values()} == {"on-failure"}
    assert len({tuple(service["command"]) for service in nodes.values()}) == 1


# -- the RUN lines, on a fresh Python that stands for the base -------------------------------------------------------


class Replay:
    """Carries out a Dockerfile below a folder: /app, /src and /var are there, and what needs root is written down."""

    def __init__(self, root: Path, base: Path, *, shims: dict[str, str] | None = None, **build_args: str) -> None:
        self.root, self.base, self.build_args, self.cwd = root, base, build_args, root
        self.calls = root / "calls"
        shim_folder = root / "shims"
        shim_folder.mkdir(parents=True)
        for name, body in {**{name: f'echo "{name} $*" >> {self.calls}' for name in RECORDED}, **(shims or {})}.items():
            (shim_folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (shim_folder / name).chmod(0o755)
        drop = ("PYTHONPATH", "PIP_CONSTRAINT", "VIRTUAL_ENV", "LOCAL_RANK")
        self.env = {name: value for name, value in os.environ.items() if name not in drop}
        self.path = f"{base / 'bin'}:{os.environ['PATH']}"
        self.env |= {"PATH": f"{shim_folder}:{self.path}", "HOME": str(root), "PIP_NO_COMPILE": "1"}

    def here(self, text: str) -> str:
        return re.sub(r"(?<![\w./-])/(app|src|var)\b", rf"{self.root}/\1", text)

    def build(self) -> None:
        for name, rest in instructions():
            if name == "ARG":
                key, _, default = rest.partition("=")
                if key in self.build_args or default:
                    self.env[key] = self.build_args.get(key, default.strip('"'))
            elif name == "ENV":
                self.env |= dict(word.split("=", 1) for word in shlex.split(self.here(rest)))
            elif name == "WORKDIR":
                self.cwd = Path(self.here(rest))
                self.cwd.mkdir(exist_ok=True)
            elif name == "COPY":
                self.copy(*shlex.split(rest))
            elif name == "RUN":
                result = self.shell(["sh", "-c", self.here(rest)])
                assert result.returncode == 0, f"{rest}\n{result.stdout}{result.stderr}"

    def copy(self, *words: str) -> None:
        *sources, destination = words
        for source in sources:
            name, target = ROOT / source, self.cwd / destination
            if name.is_dir():
                shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy(name, target)

    def shell(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.cwd, env=self.env, capture_output=True, text=True, timeout=600)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """What ``docker run IMAGE ARGS`` runs, with this machine's compiler."""
        self.env["PATH"] = self.path
        return self.shell([*json.loads(arguments("ENTRYPOINT")[0]), *args])

    def file_of(self, module: str) -> Path:
        code = f"import importlib.util; print(importlib.util.find_spec('{module}').origin)"
        return Path(self.shell(["python", "-c", code]).stdout.strip())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    """The image of a base that has a Python and nothing else."""
    if not TORCH.endswith("+cpu"):
        pytest.skip("the torch here is not the CPU build: another would have to be downloaded")
    folder = tmp_path_factory.mktemp("image")
    venv.create(folder / "base", with_pip=True)
    pip = [str(folder / "base/bin/python"), "-m", "pip", "install", "--no-deps", "--dry-run"]
    found = subprocess.run([*pip, TORCH, "jsonargparse"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"pip cannot install: {found.stderr.strip().splitlines()[-1]}")
    replay = Replay(folder / "root", folder / "base", shims={"cc": "exit 1"}, TORCH=TORCH, EXTRAS="test")
    replay.build()
    yield replay
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(900)  # pip unpacks a gigabyte
def test_a_base_without_torch_and_compiler(plain: Replay) -> None:
    calls = plain.calls.read_text().splitlines()
    assert "apt-get install -y --no-install-recommends gcc libc6-dev" in calls
    assert any(call.startswith("useradd") and "10001" in call for call in calls)
    for module in ("torch", "gwg_dist", "pytest"):  # the last is of an extra that was asked for
        assert plain.file_of(module).is_relative_to(plain.base)
    assert list((plain.root / "src").glob("build")) == []
    small = ["--trainer.max_steps=2", "--evaluation.num_chains=3", "--evaluation.final_temperatures=2"]
    trained = plain.run("gwg_dist.fit", "--run_dir=runs/first", *small)
    assert trained.returncode == 0, trained.stderr
    assert (plain.root / "app/runs/first/last.ckpt").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_base_keeps_its_torch(plain: Replay, tmp_path: Path) -> None:
    """On a base with torch and some packages, the others come and torch stays; the image's command finds it healthy."""
    venv.create(tmp_path / "base")
    packages = tmp_path / "base" / plain.file_of("torch").parents[1].relative_to(plain.base)
    shutil.copytree(plain.file_of("torch").parents[1], packages, copy_function=os.link, dirs_exist_ok=True)
    replay = Replay(tmp_path / "root", tmp_path / "base", TORCH="torch==0")
    missing = ["gwg-dist", "lightning", "pytorch-lightning", "torchmetrics", "pytest"]
    replay.shell(["python", "-m", "pip", "uninstall", "--yes", *missing])
    before = replay.file_of("torch").stat()
    replay.build()
    after = replay.file_of("torch").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (tmp_path / "root/src/constraints.txt").read_text().strip() == TORCH
    assert "apt-get" not in replay.calls.read_text() or not shutil.which("cc")
    report = replay.run(*json.loads(arguments("CMD")[0]), "--quick")
    assert report.returncode == 0, report.stdout + report.stderr
    assert f"{TORCH.removeprefix('torch==')} (" in report.stdout
    kernels = next(line for line in report.stdout.splitlines() if "native kernels" in line)
    assert "ready" in kernels or not shutil.which("cc"), "their sources are part of the package"
    temporary = next(line for line in report.stdout.splitlines() if "TMPDIR" in line)
    assert "warning" not in temporary, "it is there and used"
    shutil.rmtree(tmp_path)

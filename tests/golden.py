"""Numbers that a refactoring leaves as they are: chains of every kernel, energy and path, a run, estimates, a sweep.

    python -m tests.golden            say what differs from tests/golden.json
    python -m tests.golden --write    record what differs; the commit says which random stream changed, and why

Chains are compared by their codes, everything else within ``TOLERANCE`` (relative, float64) or ``TOLERANCE_32``: what
another CPU's rounding leaves alone. Long trajectories are in float64, where a decision is not turned by rounding.
Chains that propose in bfloat16 are left out: CPUs with and without instructions for it round differently,
which turns a decision. tests/samplers proves them by enumeration.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gwg_dist.energies import Energy, IsingEnergy, IsingTorusEnergy, MLPEnergy, PottsEnergy, RBMEnergy, ResNetEnergy
from gwg_dist.evaluation import ais
from gwg_dist.reference import Reference
from gwg_dist.samplers import GWG, BlockGibbs, Gibbs, Sampler, SurrogateGWG, Target, run_chain
from gwg_dist.spaces import Binary, Categorical

FILE = Path(__file__).with_suffix(".json")
ROOT = Path(__file__).parents[1]
TOLERANCE, TOLERANCE_32 = 1e-7, 2e-4
NUM_CHAINS, NUM_STEPS = 8, 40

ENERGIES: dict[str, Callable[[], Energy]] = {
    "ising": lambda: IsingEnergy(Binary(20)),
    "torus": lambda: IsingTorusEnergy(Binary((4, 6))),
    "potts": lambda: PottsEnergy(Categorical(6, 4)),
    "binary potts": lambda: PottsEnergy(Binary(9)),
    "rbm": lambda: RBMEnergy(Binary(12), num_hidden=10),
    "mlp": lambda: MLPEnergy(Binary(12), num_hidden=8),
    "categorical mlp": lambda: MLPEnergy(Categorical(5, 3), num_hidden=8),
    "resnet": lambda: ResNetEnergy(Binary((8, 8)), num_channels=4, num_blocks=1),
}
SPREAD = {"torus": 0.2, "ising": 0.15, "resnet": 0.3}
SAMPLERS: dict[str, Sampler] = {
    "gwg": GWG(), "gwg 1.3": GWG(1.3), "gibbs": Gibbs(), "gibbs systematic": Gibbs("systematic"),
    "surrogate": SurrogateGWG(block=3, precision="float32"),
    "block gibbs": BlockGibbs(),
}  # fmt: skip
BACKENDS = ("plain", "eager", "auto")
DIGITS = ["--model.energy=MLPEnergy", "--model.num_steps=10", "--model.chains.size=10000", "--model.learning_rate=3e-3",
          "--model.warmup_iterations=0", "--model.cooldown=0", "--model.weight_decay=0",
          "--trainer.max_steps=200", "--trainer.precision=64-true", "--evaluation.every=0", "--pictures_every=0",
          "--evaluation.num_chains=50", "--evaluation.final_temperatures=100", "--trainer.accelerator=cpu"]  # fmt: skip


def make_target(name: str, dtype: torch.dtype) -> Target:
    """Fixed random weights and a fixed random reference."""
    generator = torch.Generator().manual_seed(11)
    torch.manual_seed(0)
    energy = ENERGIES[name]()
    space = energy.space
    with torch.no_grad():
        for parameter in energy.parameters():
            random = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(SPREAD.get(name, 0.7) * random)
    reference = Reference(space, smoothing=0.1)
    reference.fit(
        torch.rand(space.num_sites, space.num_categories, generator=generator, dtype=torch.float64).softmax(1)
    )
    return Target(energy.to(dtype), reference.to(dtype))


def chain(name: str, sampler: Sampler, dtype: torch.dtype, **settings: Any) -> dict[str, Any]:
    """Where a short chain ends and how it moved."""
    target = make_target(name, dtype)
    generator = torch.Generator().manual_seed(5)
    x = target.space.encode(target.space.uniform_codes(NUM_CHAINS, generator=generator), dtype)
    end = run_chain(sampler, target, x, num_steps=NUM_STEPS, generator=generator, **settings)
    return {
        "codes": digits_of(target.space.decode(end.x)),
        "f": end.state.f.double().tolist(),
        "accept_prob": float(end.accept_prob.double().mean()),
        "hops": float(end.hops.double().mean()),
    }


def chains() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every kernel on every energy that it takes, by every path, fixed and annealed, in both precisions."""
    annealed = torch.linspace(0.05, 1, NUM_STEPS, dtype=torch.float64)
    for name in ENERGIES:
        for kernel, sampler in SAMPLERS.items():
            if kernel == "block gibbs" and name != "torus":
                continue
            for backend in BACKENDS if kernel.startswith("gwg") else ("auto",):
                for dtype in (torch.float32, torch.float64):
                    label = f"{name}, {kernel}, {backend}, {str(dtype)[6:]}"
                    yield label, chain(name, sampler, dtype, backend=backend)
            yield f"{name}, {kernel}, annealed", chain(name, sampler, torch.float64, schedule=annealed)
        yield f"{name}, gwg, beta", chain(name, GWG(), torch.float64, beta=0.6)
        betas = torch.linspace(0, 1, NUM_CHAINS, dtype=torch.float64)
        yield f"{name}, gwg, a beta a chain", chain(name, GWG(), torch.float64, beta=betas)


def estimates() -> Iterator[tuple[str, dict[str, Any]]]:
    """Annealed importance sampling."""
    for name in ("ising", "torus", "potts", "rbm", "mlp", "categorical mlp"):
        target, generator = make_target(name, torch.float64), torch.Generator().manual_seed(3)
        result = ais(target, GWG(), generator=generator, num_chains=20, num_temperatures=60, schedule="sigmoid")
        values = {"log_z": result.log_z, "stderr": result.stderr, "ess": result.ess}
        yield f"{name}, ais", values | {"codes": digits_of(result.codes)}


def digits() -> Iterator[tuple[str, dict[str, Any]]]:
    """200 iterations with every number given, in float64: trained weights, average, chains, the closing estimate."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gwg_dist.fit", f"--run_dir={folder}/run", *DIGITS]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment())
        checkpoint = torch.load(f"{folder}/run/last.ckpt", weights_only=True)
        results = json.loads(Path(f"{folder}/run/results.json").read_text())
    average = {name: summary(value) for name, value in checkpoint["state_dict"].items() if name.startswith("energy")}
    trained = {
        name: summary(value) for name, value in checkpoint["current_model_state"].items() if name.startswith("energy")
    }
    packed = checkpoint["chains"]["packed"]
    yield "digits, average", average
    yield "digits, trained", trained
    yield "digits, chains", {"sum": int(packed.long().sum()), "codes": digits_of(packed[:5])}
    yield "digits, likelihood", {"test": results["likelihood"]["test"]["mean"], "log_z": results["ais"]["log_z"]}


def sweep() -> Iterator[tuple[str, dict[str, Any]]]:
    """What a small grid chooses, and by what value (float32)."""
    import yaml

    from tests.tune.test_tune import FIXED, RATE

    settings = {
        "metric": "val/log_likelihood", "search": "grid", "scheduler": "none", "settings": FIXED,
        "space": {RATE: {"choice": [1e-5, 1e-3, 1e-2]}},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Path(f"{folder}/sweep.yaml").write_text(yaml.safe_dump(settings))
        command = [
            sys.executable,
            "-m",
            "gwg_dist.tune",
            f"--config={folder}/sweep.yaml",
            f"--sweep_dir={folder}/sweep",
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment())
        best = yaml.safe_load(Path(f"{folder}/sweep/best.yaml").read_text())
    yield "sweep", {"codes": str(best["model"]["learning_rate"])}


def environment() -> dict[str, str]:
    """Of a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def digits_of(codes: Tensor) -> str:
    """Codes as one string, chains by spaces."""
    separator = "" if int(codes.max()) < 10 else "."
    return " ".join(separator.join(map(str, row)) for row in codes.tolist())


def summary(tensor: Tensor) -> list[float]:
    """Sum, norm and first entry."""
    return [float(tensor.sum()), float(tensor.norm()), float(tensor.flatten()[0])]


def record(*parts: Callable[[], Iterator[tuple[str, dict[str, Any]]]]) -> dict[str, dict[str, Any]]:
    """What this checkout gives."""
    torch.set_num_threads(1)
    return dict(entry for part in parts for entry in part())


def without_a_compiler() -> Iterator[tuple[str, dict[str, Any]]]:
    """The torus by torch alone: its kernels in C have twins there."""
    command = [sys.executable, "-m", "tests.golden", "--only-torus"]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment() | {"GWG_DIST_NATIVE": "0"}
    )
    for name, values in json.loads(done.stdout).items():
        yield f"no compiler: {name}", values


def only_torus() -> Iterator[tuple[str, dict[str, Any]]]:
    for kernel in ("gwg", "block gibbs"):
        for dtype in (torch.float32, torch.float64):
            yield f"torus, {kernel}, {str(dtype)[6:]}", chain("torus", SAMPLERS[kernel], dtype)


def as_text(entries: dict[str, Any]) -> str:
    """JSON, an entry a line, numbers to ten digits."""
    short = json.loads(json.dumps(entries), parse_float=lambda text: float(f"{float(text):.10g}"))
    lines = [f"{json.dumps(name)}: {json.dumps(short[name])}" for name in sorted(short)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """One line for every entry that is not what it was."""
    lines = [f"{name}: {'gone' if name in expected else 'new'}" for name in sorted(expected.keys() ^ found.keys())]
    for name in sorted(expected.keys() & found.keys()):
        tolerance = TOLERANCE_32 if "float32" in name else TOLERANCE
        lines += [f"{name}: {text}" for text in unlike(expected[name], found[name], tolerance)]
    return lines


def unlike(expected: Any, found: Any, tolerance: float) -> list[str]:
    if isinstance(expected, dict):
        return [f"{key}: {text}" for key in expected for text in unlike(expected[key], found[key], tolerance)]
    if isinstance(expected, list):
        return [f"{i}: {text}" for i, pair in enumerate(zip(expected, found, strict=True))
                for text in unlike(*pair, tolerance)]  # fmt: skip
    if isinstance(expected, float):
        same = abs(expected - found) <= tolerance * (1 + abs(expected))
        return [] if same else [f"{expected} became {found}"]
    return [] if expected == found else [f"{expected} became {found}"]


PARTS = (chains, estimates, digits, without_a_compiler, sweep)


def main() -> None:
    if "--only-torus" in sys.argv:
        print(json.dumps(record(only_torus)))
    elif "--write" in sys.argv:
        kept, found = json.loads(FILE.read_text()), record(*PARTS)
        moved = {name for name in found if differences({name: kept.get(name)}, {name: found[name]})}
        FILE.write_text(as_text({name: found[name] if name in moved else kept[name] for name in found}))
    else:
        lines = differences(json.loads(FILE.read_text()), record(*PARTS))
        print("\n".join(lines) or "every number is what it was")
        sys.exit(bool(lines))


if __name__ == "__main__":
    main()

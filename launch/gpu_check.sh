#!/usr/bin/env bash
# Run everything that needs a CUDA device, without a network, and print a short table last.
#
#   launch/gpu_check.sh OUTDIR
#   STEPS="fit evaluate" launch/gpu_check.sh OUTDIR      go on with the training of an earlier call
#
# Steps, each with its log in OUTDIR. One that fails does not stop the others; the exit code is 1 then.
#   tests      tests/samplers/test_gpu.py
#   bench      every row against the step as published, and the number of chains swept: bench.json
#   fit        the paper's protocol for dynamic MNIST in OUTDIR/mnist: from its newest checkpoint on, a checkpoint about
#              every minute, ended in time by SIGTERM; likelihoods are left to the next step
#   evaluate   its last averaged weights by AIS, with as many temperatures as the time left allows
# Without a CUDA device: one line, and exit code 2.
#
# LIMIT_S   seconds for all of it (600)
# STEPS     which ("tests bench fit evaluate")
# DATA      folder with mnist.npz or the gzipped idx files (../shared/data beside the repository's root)
# RESUME    run folder or checkpoint to start from where OUTDIR/mnist has no checkpoint yet
# WHEELS    folder of wheels; those that python3 lacks are installed into OUTDIR/site and nowhere else
# CHAINS    of AIS (100)
set -euo pipefail
[[ $# == 1 ]] || { echo "usage: launch/gpu_check.sh OUTDIR" >&2; exit 2; }
if ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo "no CUDA device: python3 has no torch, or torch.cuda.is_available() is false" >&2
  exit 2
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1"
out=$(realpath "$1")
data=$(realpath -m "${DATA:-$root/../shared/data}")
resume=${RESUME:+$(realpath -m "$RESUME")}
wheels=${WHEELS:+$(realpath -m "$WHEELS")}
limit=${LIMIT_S:-600}
steps=" ${STEPS:-tests bench fit evaluate} "
run=$out/mnist
cd "$root"
export PYTHONPATH=$out/site:$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
[[ -d $resume ]] && resume=$resume/last.ckpt
[[ -z $resume || -f $resume ]] || { echo "RESUME: there is no checkpoint $resume" >&2; exit 2; }

# -- what python3 lacks ------------------------------------------------------------------------------------------------

# What is absent or of an unfit version, one a line: of the project's requirements, or of the wheels in a folder.
unmet() {
  python3 - "$@" <<'PY'
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
needed = {canonicalize_name(r.name): r.specifier for r in map(Requirement, project["dependencies"])}
names = set(needed)
if len(sys.argv) > 1:
    names = {parse_wheel_filename(path.name)[0] for path in Path(sys.argv[1]).glob("*.whl")}
for name in sorted(names):
    specifier = needed.get(name, SpecifierSet())
    try:
        met = specifier.contains(version(name), prereleases=True)
    except PackageNotFoundError:
        met = False
    if not met:
        print(f"{name}{specifier}")
PY
}

if [[ -n $wheels ]]; then
  mapfile -t missing < <(unmet "$wheels")
  if ((${#missing[@]})); then
    echo "installing into $out/site: ${missing[*]}"
    python3 -m pip install --quiet --no-index --find-links "$wheels" --no-deps --upgrade --target "$out/site" \
      "${missing[@]}" >"$out/install.log" 2>&1 || { echo "the installation failed, see $out/install.log" >&2; exit 1; }
  fi
fi
mapfile -t missing < <(unmet)
((${#missing[@]} == 0)) || echo "warning: python3 lacks ${missing[*]} (give a folder with their wheels by WHEELS)"

# -- steps -------------------------------------------------------------------------------------------------------------

failed=()

wanted() { [[ $steps == *" $1 "* ]]; }

left() { echo $((limit - SECONDS)); }

# step NAME SECONDS COMMAND...: SIGTERM after so many seconds, the output in NAME.log.
step() {
  local name=$1 seconds=$2 code=0
  shift 2
  if ((seconds < 10)); then
    echo "$name: no time left"
    failed+=("$name")
    return
  fi
  echo "$name: at most $seconds s, log in $out/$name.log"
  timeout --foreground --kill-after=30 "$seconds" "$@" >"$out/$name.log" 2>&1 || code=$?
  if ((code)) && ! grep -q "^stopped at iteration" "$out/$name.log"; then
    echo "$name failed with exit code $code (124 and 137: out of time): $(tail -n 1 "$out/$name.log")"
    failed+=("$name")
  fi
}

# Iterations in a minute by the benchmark's step of the ResNet; 500 where there is none.
iterations_a_minute() {
  python3 - "$out/bench.json" 2>/dev/null <<'PY' || echo 500
import json
import sys

with open(sys.argv[1]) as file:
    rows = json.load(file)["rows"]
step_ms = min(row["ours_ms"] for row in rows if row["name"].startswith("step, ResNet-64"))
print(max(int(60_000 / (40 * step_ms)), 10))
PY
}

if wanted tests; then
  rm -f "$out/tests.xml"
  step tests $((limit / 4)) python3 -m pytest tests/samplers/test_gpu.py -o addopts= --strict-markers -q -rs \
    -p no:xdist -p no:cacheprovider --junitxml="$out/tests.xml"
fi

if wanted bench; then
  rm -f "$out/bench.json"
  step bench $((limit * 7 / 20)) python3 -m gwg_dist.bench --device cuda --sweep --out "$out/bench.json"
fi

if [[ ! -f $data/mnist.npz && ! -f $data/train-images-idx3-ubyte.gz ]]; then
  echo "MNIST is skipped: neither mnist.npz nor idx files in $data (set DATA)"
  steps=${steps/ fit / }
  steps=${steps/ evaluate / }
fi

if wanted fit; then
  if [[ -n $resume && ! -f $run/last.ckpt ]]; then
    mkdir -p "$run"
    cp "$resume" "$run/last.ckpt"
  fi
  watch=
  rm -f "$out/memory.log"
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi -i "${CUDA_VISIBLE_DEVICES:-0}" --query-gpu=memory.used --format=csv,noheader,nounits -l 5 \
      >"$out/memory.log" 2>/dev/null &
    watch=$!
  fi
  rest=15
  if wanted evaluate; then rest=$((limit / 5 + 15)); fi
  step fit $(($(left) - rest)) python3 -m gwg_dist.fit --config configs/experiment/mnist_dynamic.yaml \
    --data.root "$data" --run_dir "$run" --ckpt_path last --checkpoint_every "$(iterations_a_minute)" \
    --evaluation.every 0 --evaluation.final_temperatures 1000
  if [[ -n $watch ]]; then kill "$watch" 2>/dev/null || true; fi
fi

if wanted evaluate; then
  step evaluate "$(left)" python3 - "$run" "${CHAINS:-100}" $(($(left) - 5)) <<'PY'
import sys
import time

began = time.monotonic()
from gwg_dist import evaluate

run, num_chains, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])


def timed(num_temperatures: int) -> float:
    start = time.monotonic()
    evaluate.main([run, "--checkpoint=last", f"--num_chains={num_chains}", f"--num_temperatures={num_temperatures}"])
    return time.monotonic() - start


timed(100)  # warms up
fixed, short = timed(100), timed(1100)
a_temperature = max(short - fixed, 1e-3) / 1000
left = seconds - (time.monotonic() - began) - fixed
num_temperatures = int(float(f"{0.85 * left / a_temperature:.1e}"))
print(f"{1e3 * a_temperature:.3f} ms a temperature, {left:.0f} s left: {num_temperatures} temperatures", flush=True)
if num_temperatures > 1100:
    timed(num_temperatures)
PY
fi

# -- the table ---------------------------------------------------------------------------------------------------------

find "$out" -name '*.ckpt' -size +16000000c -printf 'warning: %p is larger than 16 MB: %s bytes\n'
python3 - "$out" <<'PY' || failed+=(table)
import json
import re
import statistics
import sys
from pathlib import Path
from xml.etree import ElementTree

import torch
import yaml

out = Path(sys.argv[1])


def line(name: str, text: str) -> None:
    print(f"{name:<34}{text}")


def text_of(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def scalars(row: dict) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in row.items()}
    return "  ".join(f"{name} {value}" for name, value in shown.items())


print()
line("device", f"{torch.cuda.get_device_name()}, torch {torch.__version__}")

if (out / "tests.xml").is_file():
    suites = list(ElementTree.parse(out / "tests.xml").getroot().iter("testsuite"))
    num, bad, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (["tests"], ["failures", "errors"], ["skipped"])
    )
    line("GPU tests", f"{num - bad - skipped} passed, {bad} failed, {skipped} skipped")

if (out / "bench.json").is_file():
    bench = json.loads((out / "bench.json").read_text())
    for row in bench.pop("rows", []):
        memory = "".join(f", {key} {value:.4g}" for key, value in row.items() if "mem" in key or "peak" in key)
        ours, published, ratio = row["ours_ms"], row["published_ms"], row["ratio"]
        line("bench", f"{row['name']}: {ours:.3f} ms, published {published:.3f} ms, ratio {ratio:.2f}{memory}")
    for name, rows in bench.items():
        for row in rows if isinstance(rows, list) else []:
            line(name, scalars(row) if isinstance(row, dict) else str(row))

log = text_of(out / "fit.log")
rates = [float(rate) for rate in re.findall(r"^iteration \d+/.* ([\d.]+) steps/s", log, re.MULTILINE)]
if (out / "mnist/config.yaml").is_file() and rates:
    config = yaml.safe_load((out / "mnist/config.yaml").read_text())
    num_steps, num_chains = config["model"]["num_steps"], config["data"]["init_args"]["batch_size"]
    rate = statistics.median(rates[1:] or rates)
    line("fit, ms an iteration", f"{1e3 * num_steps / rate:.2f}: {num_steps} steps of {num_chains} chains, update")
    line("fit, chain-steps/s", f"{rate * num_chains:.3g}")
memory = [float(value) for value in re.findall(r"^\s*(\d+)\s*$", text_of(out / "memory.log"), re.MULTILINE)]
if memory:
    line("fit, device memory in use, peak", f"{max(memory):.0f} MiB (the context and the caches included)")
stopped = re.findall(r"^(?:stopped at iteration (\d+)|(\d+) iterations, )", log, re.MULTILINE)
if stopped:
    line("fit, iterations so far", "".join(stopped[-1]))
for path in sorted((out / "mnist").glob("*.ckpt")):
    line("checkpoint", f"{path.name}, {path.stat().st_size / 1e6:.1f} MB")

results = [json.loads(path.read_text()) for path in (out / "mnist/evaluation").glob("last-*.json")]
if results:
    best = max(results, key=lambda values: (values["iteration"], values["ais"]["num_temperatures"]))
    ais = best["ais"]
    for split, value in best["likelihood"].items():
        line(
            f"log-likelihood, {split}, nats",
            f"{value['mean']:.2f} ± {value['stderr']:.2f} (log Z) ± {value['data_stderr']:.2f} (data)",
        )
    line(
        "AIS, forward",
        f"iteration {best['iteration']}, T = {ais['num_temperatures']}, {ais['num_chains']} chains, log Z "
        f"{ais['log_z']:.2f} ± {ais['stderr']:.2f}, ESS {ais['ess']:.1f}{', COLLAPSED' if ais['collapsed'] else ''}",
    )
PY
echo "everything is in $out; $SECONDS s"
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}"
  exit 1
fi

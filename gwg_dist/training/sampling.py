"""Samples of a run's model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gwg_dist.pictures import save_grid
from gwg_dist.samplers import run_chain
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import make_folder, replacing
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import make_progress, say, track
from gwg_dist.training.loading import LoadedRun, load_run

STARTS = ("buffer", "reference")
NUM_LINES = 10


def sample_run(
    run: str,
    num: int,
    num_steps: int,
    start: str,
    checkpoint: str,
    out: Path | None,
    seed: int,
    device: str | None,
    trust: str,
) -> Path:
    """Draw and write samples of a run; see ``gwg_dist.sample``. Raises InputError for what cannot be used."""
    for name, value, least in (("num", num, 1), ("num_steps", num_steps, 0)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    if start not in STARTS:
        raise InputError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    loaded = load_run(run, checkpoint, device=device, trust=trust)
    suffixes = [".npz", *([loaded.data.beside] if loaded.data.beside else [])]
    if out is not None and out.suffix not in suffixes:
        raise InputError(f"out must end in {' or '.join(suffixes)}, got {out}")
    path = (out or usual_file(Path(run), f"samples-{num}.npz")).with_suffix(".npz")
    make_folder(path.parent, name="out")
    module = loaded.module
    generator = make_generator(seed, "sample", device=module.device)
    x = module.space.encode(start_codes(loaded, num, start, generator))
    with make_progress() as progress, track(progress, "sampling", num_steps) as advance:
        chain = run_chain(
            module.sampler,
            module.target,
            x,
            num_steps=num_steps,
            generator=generator,
            backend=module.backend,
            before_step=lambda step, _: advance(step),
        )
    codes = module.space.decode(chain.x).cpu()
    with replacing(path) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, x=codes.numpy().reshape(num, *module.space.shape), f=chain.state.f.cpu().numpy())
    say(f"{num} samples, acceptance {float(chain.accept_prob.mean()):.2f}, written to {path}")
    if loaded.data.beside:
        words = path.with_suffix(loaded.data.beside)
        loaded.data.write_file(words, codes, [str(n + 1) for n in range(num)])
        say(f"as the data are written: {words}")
    picture = path.with_suffix(".png")
    if save_grid(codes, module.space, picture):
        say(f"picture: {picture}")
    if loaded.data.has_lines:
        say_lines(loaded.data.lines(codes), path.with_suffix(".txt"))
    return path


def say_lines(lines: list[str], path: Path) -> None:
    """Print the first of some lines, and write all."""
    for line in lines[:NUM_LINES]:
        say(f"  {line}")
    with replacing(path) as beside:
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    say(f"text: {path}")


def usual_file(folder: Path, name: str) -> Path:
    """The file in the run's folder; in the working folder where that cannot be written to."""
    try:
        make_folder(folder, name="out")
    except InputError:
        return Path(name)
    return folder / name


def start_codes(loaded: LoadedRun, num: int, start: str, generator: torch.Generator) -> Tensor:
    """Codes ``(num, D)`` at which the chains begin. Raises InputError where the buffer has too few."""
    module = loaded.module
    if start == "reference":
        return module.reference.sample(num, generator=generator)
    packed = loaded.checkpoint["chains"]["packed"]
    packed = None if packed is None else module.chains.of_model(packed)
    if packed is None or len(packed) < num:
        has = 0 if packed is None else len(packed)
        raise InputError(f"the checkpoint keeps {has} chains, fewer than {num}: use --start reference")
    rows = torch.randperm(len(packed), generator=generator, device=generator.device)[:num].cpu()
    return module.space.unpack(packed[rows]).to(module.device)

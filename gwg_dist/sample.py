"""Draw samples from a run's model.

python -m gwg_dist.sample RUN --num 64
python -m gwg_dist.sample RUN --num 1000 --start reference --num_steps 20000
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gwg_dist.cli import run_command
from gwg_dist.pictures import save_grid
from gwg_dist.runs import LoadedRun, load_run, make_folder
from gwg_dist.samplers import run_chain
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import console, make_progress, track

STARTS = ("buffer", "reference")


def sample(
    run: str,
    *,
    num: int = 64,
    num_steps: int = 1000,
    start: str = "buffer",
    checkpoint: str = "best",
    out: str | None = None,
    seed: int = 0,
    device: str | None = None,
) -> Path:
    """Write ``num`` samples as integers to an .npz, and as a picture beside it where points are images.

    Args:
        run: the run's folder.
        num: how many.
        num_steps: MCMC steps that each chain takes with the evaluated weights.
        start: "buffer", the checkpoint's persistent chains, or "reference", afresh; those need many more steps.
        checkpoint: "best", "last", or the path of a file.
        out: the .npz; RUN/samples-NUM.npz by default.
        seed: of the randomness.
        device: "cpu", "cuda", ...; a CUDA device where there is one.
    """
    for name, value, least in (("num", num, 1), ("num_steps", num_steps, 0)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    if start not in STARTS:
        raise InputError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    path = Path(out) if out is not None else Path(run) / f"samples-{num}.npz"
    if path.suffix != ".npz":
        raise InputError(f"out must end in .npz, got {path}")
    loaded = load_run(run, checkpoint, device=device)
    make_folder(path.parent)
    module = loaded.module
    generator = make_generator(seed, "sample", device=module.device)
    x = module.space.encode(start_codes(loaded, num, start, generator))
    with make_progress() as progress, track(progress, "sampling", num_steps) as advance:
        chain = run_chain(
            module.sampler, module.target, x, num_steps=num_steps, generator=generator, backend=module.backend,
            before_step=lambda step, _: advance(step),
        )  # fmt: skip
    codes = module.space.decode(chain.x).cpu()
    np.savez_compressed(path, x=codes.numpy().reshape(num, *module.space.shape), f=chain.state.f.cpu().numpy())
    console.print(f"{num} samples, acceptance {float(chain.accept_prob.mean()):.2f}, written to {path}", soft_wrap=True)
    picture = path.with_suffix(".png")
    if save_grid(codes, module.space, picture):
        console.print(f"picture: {picture}", soft_wrap=True)
    return path


def start_codes(loaded: LoadedRun, num: int, start: str, generator: torch.Generator) -> Tensor:
    """Where the chains begin. Raises InputError where the buffer has too few."""
    module = loaded.module
    if start == "reference":
        return module.reference.sample(num, generator=generator)
    packed = loaded.checkpoint["chains"]["packed"]
    if packed is None or len(packed) < num:
        has = 0 if packed is None else len(packed)
        raise InputError(f"the checkpoint keeps {has} chains, fewer than {num}: use --start reference")
    rows = torch.randperm(len(packed), generator=generator, device=generator.device)[:num].cpu()
    return module.space.unpack(packed[rows]).to(module.device)


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(sample, args, prog="python -m gwg_dist.sample", description=__doc__)


if __name__ == "__main__":
    main()

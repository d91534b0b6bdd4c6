"""Runs from Python: train one, load one, score points with it. The settings and folders are those of the command line.

run = fit("my.npz", **{"model.num_steps": 20, "run_dir": "runs/mine"})
run = load_run("runs/mine")
log_z = estimate_log_z(run)
scores = score(run, points, log_z)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentError
from torch import Tensor

from gwg_dist.evaluation import AISResult, ais
from gwg_dist.evaluation.scores import score_points
from gwg_dist.tools.errors import InputError
from gwg_dist.tools.seeding import make_generator
from gwg_dist.tools.terminal import quiet
from gwg_dist.training.folder import BEST, find_place
from gwg_dist.training.living import owned
from gwg_dist.training.loading import LoadedRun, load_run
from gwg_dist.training.ranges import check
from gwg_dist.training.run import train
from gwg_dist.training.settings import build_parser

__all__ = ["LoadedRun", "Scores", "estimate_log_z", "fit", "load_run", "score"]


class Scores(NamedTuple):
    """What a model says of points.

    Args:
        energies: E(x) in nats, ``(N,)`` float64.
        log_likelihood: log p(x) in nats, ``(N,)`` float64.
        stderr: standard error of every ``log_likelihood``: that of log Z, which all points share.
    """

    energies: Tensor
    log_likelihood: Tensor
    stderr: float


def fit(settings: str | Path | Mapping[str, Any] | None = None, **more: Any) -> LoadedRun:
    """Train a model as ``gwg_dist fit`` does, and load it with its best weights.

    Args:
        settings: a file of data, a YAML file of settings, or settings by their dotted keys; None for all defaults.
        more: further settings by their dotted keys, which win.

    Raises:
        InputError: a setting or a file that does not fit.
        DivergedError: training left the numbers that mean something.
    """
    quiet()
    args = []
    if isinstance(settings, Mapping):
        more = {**settings, **more}
    elif settings is not None:
        args = ["--config", str(settings)] if Path(settings).suffix in (".yaml", ".yml") else [str(settings)]
    args += [f"--{key}={value}" for key, value in more.items()]
    parser = build_parser()
    parser.exit_on_error = False
    try:
        config = parser.parse_args(args)
    except ArgumentError as error:
        raise InputError(parser.explain(str(error))) from error
    check(config)
    place = find_place(config)
    with owned(place.folder, new=place.new) as folder:
        train(parser, config, place._replace(folder=folder))
    checkpoint = "best" if (folder / BEST).is_file() else "last"
    return load_run(folder, checkpoint, trust=",".join(parser.trusted))


def estimate_log_z(run: LoadedRun, *, num_chains: int = 200, num_temperatures: int = 1000, seed: int = 0) -> AISResult:
    """Estimate log Z of a run's model by annealed importance sampling; see ``AISResult.collapsed`` before using it.

    Args:
        run: the run.
        num_chains: AIS chains.
        num_temperatures: gradient evaluations a chain.
        seed: seed of the chains.
    """
    module = run.module
    generator = make_generator(seed, "log z", device=module.device)
    return ais(
        module.target, module.sampler.annealed(), generator=generator, num_chains=num_chains,
        num_temperatures=num_temperatures, backend=module.backend,
    )  # fmt: skip


def score(run: LoadedRun, points: Tensor | np.ndarray, log_z: AISResult | None = None) -> Scores:
    """Energies and log-likelihoods of points.

    Args:
        run: the run.
        points: integers 0..K-1, ``(N, sites)`` or in the shape of the data, ``(N, ...)``.
        log_z: estimate of log Z; None makes one.

    Raises:
        InputError: points of another shape, or of values that the model does not know.
    """
    module = run.module
    space, given = module.space, torch.as_tensor(points)
    if given.is_floating_point() or given.ndim < 2:
        raise InputError(f"points must be integers of shape (N, ...), got {given.dtype} of {tuple(given.shape)}")
    codes = given.reshape(len(given), -1)
    try:
        space.check_codes(codes, "points")
    except ValueError as error:
        raise InputError(str(error)) from error
    codes = codes.to(device=module.device, dtype=space.code_dtype)
    estimate = log_z or estimate_log_z(run)
    found = score_points(module.target, codes)
    return Scores(found.energies, found.unnormalised - estimate.log_z, estimate.stderr)

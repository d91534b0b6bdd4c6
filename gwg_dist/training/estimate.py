"""The likelihood of a run's model, estimated after training; one that is stopped waits and goes on."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
import yaml
from torch import Tensor

from gwg_dist.batch import weighted_mean
from gwg_dist.callbacks import held_out, in_eval_mode, tell_of_no_pilot
from gwg_dist.evaluation import (
    AISSettings,
    Assessment,
    assessment_of,
    beta_schedule,
    check_num_chains,
    collapse_warning,
    exact_log_z,
    hidden_log_z,
    hidden_seconds,
    num_hidden_units,
    unnormalised_log_prob,
)
from gwg_dist.evaluation.ais import check_systems
from gwg_dist.evaluation.assess import AIS
from gwg_dist.evaluation.hidden import MAX_HIDDEN_UNITS
from gwg_dist.evaluation.pilot import NUM_CHAINS
from gwg_dist.evaluation.schedules import ADAPTIVE
from gwg_dist.evaluation.verdict import GAP, UNQUOTABLE
from gwg_dist.spaces import Space
from gwg_dist.tools.distributed import from_rank_0, rank, world_size
from gwg_dist.tools.errors import InputError, Stopped
from gwg_dist.tools.files import make_folder, surviving, write_json
from gwg_dist.tools.provenance import provenance
from gwg_dist.tools.terminal import console, make_progress, say
from gwg_dist.training.folder import CONFIG, EVALUATION
from gwg_dist.training.interruption import Interruption
from gwg_dist.training.loading import LoadedRun, load_run
from gwg_dist.training.processes import meeting
from gwg_dist.training.resample import Resample, resample_of
from gwg_dist.training.results import assessment_json, assessment_table, title_of, training_of
from gwg_dist.training.rounds import Rounds, Wanted
from gwg_dist.training.sides_shown import (
    STANDING_STYLES,
    evaluations_json,
    judged,
    likelihood_table,
    links_table,
    routes_table,
    sides_json,
)
from gwg_dist.training.starts import training_part
from gwg_dist.training.verdict import tell_verdict
from gwg_dist.training.waiting import Waiting

MAX_EXACT_STATES = 2**20
MAX_EXACT_SECONDS = 20.0  # of a sum over more than 2^20 states of hidden units
BOTH, FORWARD = SIDES = ("both", "forward")


class Order(NamedTuple):
    """What a command line of ``gwg_dist evaluate`` asks for; see there."""

    run: str
    checkpoint: str
    settings: dict[str, Any]
    sides: str
    starts: str | None
    until_gap: float | None
    max_minutes: float
    device: str | None
    out: str | None
    trust: str
    as_json: bool

    def wanted(self) -> Wanted:
        """Raises InputError for a number outside its range."""
        if self.sides not in SIDES:
            raise InputError(f"sides must be one of {', '.join(SIDES)}, got {self.sides!r}")
        two_sided = self.sides == BOTH
        if self.until_gap is not None and not self.until_gap > 0:
            raise InputError(f"until_gap must be positive, got {self.until_gap}")
        if not self.max_minutes > 0:
            raise InputError(f"max_minutes must be positive, got {self.max_minutes}")
        if not two_sided and (self.until_gap is not None or self.starts is not None):
            raise InputError(f"until_gap and starts are of both sides, got sides = {self.sides}")
        try:
            settings = AISSettings(**self.settings)
            beta_schedule(settings.num_temperatures)  # more than memory holds end before anything is made
            check_num_chains(settings.num_chains, world_size())
            if settings.num_systems:
                check_systems(settings.num_chains, settings.num_systems)
        except ValueError as error:
            raise InputError(str(error)) from error
        return Wanted(settings, two_sided, self.until_gap, self.max_minutes)


def evaluate_run(order: Order) -> Path | None:
    """Estimate, print and write the likelihoods of a run; see ``gwg_dist.evaluate``. The path of the JSON, if any.

    Raises:
        InputError: a run, checkpoint, device or setting that cannot be used.
        Stopped: a signal came; the estimate waits in the run's folder.
    """
    with meeting(order.device) as mine:
        wanted, run = order.wanted(), Path(order.run)
        loaded = load_run(run, order.checkpoint, device=mine, trust=order.trust)
        usual = run / EVALUATION / f"{name_of(loaded, wanted, order)}.json"
        path = where_to(Path(order.out) if order.out is not None else None, usual)
        if rank() == 0:
            tell_of_no_pilot(wanted.settings, loaded.module.sampler, "pilot")
            loaded.data.prepare_data()
            for name, (points, _) in held_out(loaded.data.splits).items():
                if not len(points):
                    say(f"the data hold out no points for {name}: there is no likelihood of them")
        if world_size() > 1:
            dist.barrier()
        how = from_rank_0(exact_way(loaded, aloud=True) if rank() == 0 else None)
        if wanted.until_gap is not None and how is not None:
            wanted = wanted._replace(until_gap=None)
            if rank() == 0:
                say(f"log Z is exact, by {how}: one round is enough, until_gap has no effect")
        if order.starts is not None:
            wanted = wanted._replace(starts=given_starts(loaded, order.starts))
        with Interruption(loaded.module.device) as interruption:
            outcome = estimate(loaded, wanted, (path or usual).with_suffix(".partial.pt"), interruption)
            outcome = None if outcome is None else with_train(loaded, outcome)
            resample = None if outcome is None or outcome.sides is None else resample_of(loaded, outcome)
            if outcome is not None and rank() == 0:
                tell(loaded, outcome, run, path, order=order, wanted=wanted, how=how, resample=resample)
    if outcome is None:
        raise Stopped(interruption.received)
    return path


def name_of(loaded: LoadedRun, wanted: Wanted, order: Order) -> str:
    """The name of the file, which says what is in it."""
    settings = wanted.settings
    name = f"{loaded.path.stem}-{loaded.checkpoint['global_step']:07d}"
    name += f"-{settings.num_chains}x{settings.num_temperatures}-{settings.schedule}"
    name += f"-pilot{settings.pilot}" if settings.for_kernel(loaded.module.sampler).pilot else ""
    name += "" if settings.estimator == AIS else f"-{settings.estimator}"
    name += "" if wanted.two_sided else f"-{order.sides}"
    name += f"-from-{Path(order.starts).stem}" if order.starts is not None else ""
    return name + (f"-until{wanted.until_gap:g}" if wanted.until_gap is not None else "")


def given_starts(loaded: LoadedRun, path: str) -> Tensor:
    """Points of a file, codes ``(N, D)``. Raises InputError where they are of another space, or too few."""
    try:
        codes = loaded.data.encode_file(path)[0]
    except InputError as error:
        raise InputError(f"starts: {str(error).removeprefix('file: ')}") from error
    least = max(2, world_size())
    if len(codes) < least:
        raise InputError(f"starts: {path} holds {len(codes)} points, at least {least} are needed")
    return codes


def where_to(asked: Path | None, usual: Path) -> Path | None:
    """The file for the numbers: the one that is asked for, or the usual one; None where its folder cannot be written.

    Called on every rank. Raises InputError where the one that is asked for cannot be written, or holds something else.
    """
    if asked is not None and asked.is_dir():
        raise InputError(f"out: {asked} is a folder, expected the path of a file, as {asked / usual.name}")
    if asked is not None and asked.is_file() and not holds_likelihoods(asked):
        raise InputError(f"out: {asked} is there and holds no likelihoods: choose another name, nothing is overwritten")
    path: Path | None = asked or usual
    if rank() == 0 and path is not None:
        try:
            make_folder(path.parent, name="out")
        except InputError:
            if asked is not None:
                raise
            say(f"{path.parent} cannot be written to: the estimate is printed and not kept; --out=FILE.json keeps it")
            path = None
    return from_rank_0(path)


def holds_likelihoods(path: Path) -> bool:
    """Whether a file is one that ``evaluate`` wrote."""
    try:
        return "likelihood" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def estimate(loaded: LoadedRun, wanted: Wanted, path: Path, interruption: Interruption) -> Assessment | None:
    """Go on with the estimate that waits at ``path``, or begin; one that is stopped waits there for the next call."""
    waiting = Waiting(path, loaded.checkpoint)
    with make_progress() as progress:
        rounds = Rounds(loaded, wanted, waiting, interruption.agreed, progress if rank() == 0 else None)
        if rank() == 0 and rounds.state.where():
            say(f"going on after {rounds.state.where()}")
        outcome = rounds.go()
    if outcome is None and rank() == 0:
        then = "the same command goes on" if path.is_file() else "nothing of it is kept"
        say(f"stopped after {rounds.state.where() or 'nothing'}; {then}")
    elif rank() == 0 and path.is_file():
        say(f"time is up in a round of {rounds.state.where()}; the same command with more --max_minutes goes on")
    return outcome


def tell(
    loaded: LoadedRun,
    assessment: Assessment,
    folder: Path,
    path: Path | None,
    *,
    order: Order,
    wanted: Wanted,
    how: str | None,
    resample: Resample | None = None,
) -> None:
    """Print the estimate, the exact values where there are any, and write both to ``path``, if any.

    Args:
        loaded: the model.
        assessment: what was found.
        folder: the run's.
        path: file for the numbers; None for none.
        order: what was asked for; with ``as_json`` the numbers go to standard output as well.
        wanted: what of it was to be done.
        how: see ``exact_way``.
        resample: how new chains compare with those of the run, where that is known.
    """
    space, origin = loaded.module.space, origin_json(loaded, assessment, folder, wanted)
    exact = None if how is None else exact_values(loaded)
    if exact is not None and assessment.sides is not None:
        assessment = replace(assessment, sides=replace(assessment.sides, exact=exact["log_z"]))
    values = assessment_json(assessment, space, loaded.checkpoint, loaded.path)
    values |= origin
    title = title_of(loaded.path, loaded.checkpoint)
    if assessment.sides is None:
        console.print(assessment_table(assessment, space, title=title))
    else:
        values["sides"] = tell_sides(assessment, space, title, wanted.until_gap)
    if resample is not None:
        values["resample"] = resample.json()
        say(resample.sentence(), "bold yellow" if resample.is_apart else "")
    if assessment.collapsed:
        say(collapse_warning(assessment), "bold red")
    training = training_of(folder, loaded.checkpoint, loaded.data.batch_size)
    tell_verdict(assessment, loaded.module, folder, training)
    if exact is not None:
        values["exact"] = exact
        found = ", ".join(f"{name} {value:.4f}" for name, value in exact.items() if name not in ("log_z", "val"))
        say(f"exact, by {how}: log Z {exact['log_z']:.4f}, {found} nats")
    if path is not None:
        with surviving(path.name):
            write_json(path, values)
            say(f"written to {path}")
    if order.as_json:
        sys.stdout.write(json.dumps(values, indent=2) + "\n")


def tell_sides(assessment: Assessment, space: Space, title: str, until_gap: float | None) -> dict[str, Any]:
    """Print both sides, the verdict first; the same as plain numbers."""
    assert assessment.sides is not None
    standing = judged(assessment, until_gap)
    say(standing.sentence(), STANDING_STYLES[standing.kind])
    console.print(routes_table(assessment.sides))
    if standing.kind in (GAP, UNQUOTABLE) and assessment.sides.ladder is not None:
        console.print(links_table(assessment.sides))
    console.print(likelihood_table(assessment, space, title=title))
    return sides_json(assessment, standing, space)


def origin_json(loaded: LoadedRun, assessment: Assessment, folder: Path, wanted: Wanted) -> dict[str, Any]:
    """What the numbers come from: code and machine, seed, the run's settings, those of the estimate, and its cost."""
    config = (folder / CONFIG).read_bytes()
    return {
        "made by": provenance(loaded.module.device),
        "seed": loaded.module.seed,
        "run": {
            "folder": folder.resolve().name,
            "config_sha256": hashlib.sha256(config).hexdigest(),
            "config": yaml.safe_load(config),
            "kernel": loaded.checkpoint["gwg_dist"].get("kernel"),
        },
        "settings": wanted.asked() | {"until_gap": wanted.until_gap, "kernel": str(loaded.module.sampler.annealed())},
        "gradient_evaluations": evaluations_json(assessment, pilot=pilot_evaluations(wanted.settings, loaded)),
    }


def pilot_evaluations(settings: AISSettings, loaded: LoadedRun) -> int:
    """Gradient evaluations of the pilot runs of an estimate."""
    needed = settings.for_kernel(loaded.module.sampler).pilot
    return NUM_CHAINS * needed * (2 if settings.schedule == ADAPTIVE else 1)


def with_train(loaded: LoadedRun, assessment: Assessment) -> Assessment:
    """The assessment with at most 10,000 training points; not of images in shades of grey. Called on every rank."""
    part = training_part(loaded.data)
    if assessment.sides is None or not part:
        return assessment
    with in_eval_mode(loaded.module):
        found = assessment_of(assessment.estimate, loaded.module.target, part)
    return replace(
        assessment,
        likelihoods=found.likelihoods | assessment.likelihoods,
        reference=found.reference | assessment.reference,
        points=found.points | assessment.points,
    )


def exact_way(loaded: LoadedRun, *, aloud: bool = False) -> str | None:
    """How log Z can be summed exactly; None where there are too many terms.

    More than 2^20 states of hidden units are summed where that takes no longer than 20 s on this machine, by the time
    of a part of the sum; with ``aloud`` a sum that would take longer is said. One process's clock decides, so ask one.
    """
    if loaded.module.space.num_states <= MAX_EXACT_STATES:
        return "enumeration"
    num_hidden = num_hidden_units(loaded.module.target)
    if num_hidden is None or num_hidden > MAX_HIDDEN_UNITS:
        return None
    seconds = seconds_of_sum(loaded) if 2**num_hidden > MAX_EXACT_STATES else 0.0
    if seconds <= MAX_EXACT_SECONDS:
        return "the sum over hidden units"
    if aloud:
        say(f"log Z is not summed over 2^{num_hidden} states of the hidden units: it would take {seconds:.0f} s, more "
            f"than {MAX_EXACT_SECONDS:.0f}")  # fmt: skip
    return None


def seconds_of_sum(loaded: LoadedRun) -> float:
    """How long a sum over hidden units takes on the processor, where ``exact_values`` makes it."""
    device = loaded.module.device
    seconds = hidden_seconds(loaded.module.cpu().target)
    loaded.module.to(device)
    return seconds


def exact_values(loaded: LoadedRun) -> dict[str, float]:
    """log Z and the mean log-likelihoods in nats, by the sum that ``exact_way`` names."""
    by_points = loaded.module.space.num_states <= MAX_EXACT_STATES
    module = loaded.module.cpu()
    log_z = exact_log_z(module.target) if by_points else hidden_log_z(module.target)
    values = {"log_z": log_z}
    for name, split in (("val", "validation"), ("test", "test")):
        codes, weights = loaded.data.splits.parts[split]
        if len(codes):
            values[name] = float(weighted_mean(unnormalised_log_prob(module.target, codes), weights)) - log_z
    return values

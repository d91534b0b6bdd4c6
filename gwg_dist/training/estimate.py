"""The likelihood of a run's model, estimated after training; one that is stopped waits and goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed as dist

from gwg_dist.batch import weighted_mean
from gwg_dist.callbacks import assess_module, tell_of_no_pilot
from gwg_dist.evaluation import (
    AISSettings,
    Assessment,
    Unfinished,
    check_num_chains,
    collapse_warning,
    exact_log_z,
    hidden_log_z,
    num_hidden_units,
    unnormalised_log_prob,
)
from gwg_dist.tools.distributed import from_rank_0, rank, world_size
from gwg_dist.tools.errors import InputError, Stopped
from gwg_dist.tools.files import make_folder, surviving, write_json
from gwg_dist.tools.provenance import provenance
from gwg_dist.tools.terminal import console, make_progress, say
from gwg_dist.training.folder import EVALUATION
from gwg_dist.training.interruption import Interruption
from gwg_dist.training.loading import LoadedRun, load_run
from gwg_dist.training.processes import meeting
from gwg_dist.training.results import Waiting, assessment_json, assessment_table, title_of, training_of
from gwg_dist.training.verdict import tell_verdict

MAX_EXACT_STATES = 2**20


def evaluate_run(
    run: str,
    checkpoint: str,
    num_chains: int,
    num_temperatures: int,
    schedule: str,
    pilot: int,
    device: str | None,
    out: str | None,
    trust: str,
    as_json: bool = False,
) -> Path | None:
    """Estimate, print and write the likelihoods of a run; see ``gwg_dist.evaluate``. The path of the JSON, if any.

    Raises:
        InputError: a run, checkpoint, device or setting that cannot be used.
        Stopped: a signal came; the estimate waits in the run's folder.
    """
    with meeting(device) as mine:
        try:
            settings = AISSettings(num_chains, num_temperatures, schedule, pilot)
            check_num_chains(num_chains, world_size())
        except ValueError as error:
            raise InputError(str(error)) from error
        loaded = load_run(run, checkpoint, device=mine, trust=trust)
        name = f"{loaded.path.stem}-{loaded.checkpoint['global_step']:07d}-{num_chains}x{num_temperatures}-{schedule}"
        name += f"-pilot{pilot}" if settings.for_kernel(loaded.module.sampler).pilot else ""
        usual = Path(run) / EVALUATION / f"{name}.json"
        path = where_to(Path(out) if out is not None else None, usual)
        if rank() == 0:
            tell_of_no_pilot(settings, loaded.module.sampler, "pilot")
            loaded.data.prepare_data()
        if world_size() > 1:
            dist.barrier()
        with Interruption(loaded.module.device) as interruption:
            outcome = estimate(loaded, settings, (path or usual).with_suffix(".partial.pt"), interruption)
            if isinstance(outcome, Assessment) and rank() == 0:
                tell(loaded, outcome, Path(run), path, as_json=as_json)
    if isinstance(outcome, Unfinished):
        raise Stopped(interruption.received)
    return path


def where_to(asked: Path | None, usual: Path) -> Path | None:
    """The file for the numbers: the one that is asked for, or the usual one; None where its folder cannot be written.

    Called on every rank. Raises InputError where the one that is asked for cannot be written.
    """
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


def estimate(
    loaded: LoadedRun, settings: AISSettings, path: Path, interruption: Interruption
) -> Assessment | Unfinished:
    """Go on with the estimate that waits at ``path``, or begin; one that is stopped waits there for the next call."""
    waiting = Waiting(path, loaded.checkpoint)
    begun = waiting.read()
    if begun is not None and rank() == 0:
        say(f"going on after {begun.t} of {begun.num_temperatures} temperatures")
    with make_progress() as progress:
        outcome = assess_module(
            loaded.module,
            loaded.data.splits,
            settings,
            iteration=loaded.checkpoint["global_step"],
            progress=progress if rank() == 0 else None,
            stop=interruption.agreed,
            unfinished=begun,
        )
    if isinstance(outcome, Assessment):
        waiting.delete()
        return outcome
    waiting.write(outcome)
    if rank() == 0:
        then = "the same command goes on" if path.is_file() else "nothing of it is kept"
        say(f"stopped after {outcome.t} of {outcome.num_temperatures} temperatures; {then}")
    return outcome


def tell(loaded: LoadedRun, assessment: Assessment, folder: Path, path: Path | None, *, as_json: bool) -> None:
    """Print the estimate, the exact values where there are any, and write both to ``path``, if any.

    With ``as_json`` the numbers go to standard output as well.
    """
    space = loaded.module.space
    values = assessment_json(assessment, space, loaded.checkpoint, loaded.path)
    values["made by"] = provenance(loaded.module.device)
    console.print(assessment_table(assessment, space, title=title_of(loaded.path, loaded.checkpoint)))
    if assessment.collapsed:
        say(collapse_warning(assessment), "bold red")
    training = training_of(folder, loaded.checkpoint, loaded.data.batch_size)
    tell_verdict(assessment, loaded.module, folder, training)
    how = exact_way(loaded)
    if how is not None:
        values["exact"] = exact = exact_values(loaded)
        say(f"exact, by {how}: log Z {exact['log_z']:.4f}, test {exact['test']:.4f} nats")
    if path is not None:
        with surviving(path.name):
            write_json(path, values)
            say(f"written to {path}")
    if as_json:
        sys.stdout.write(json.dumps(values, indent=2) + "\n")


def exact_way(loaded: LoadedRun) -> str | None:
    """How log Z can be summed exactly; None where there are too many terms."""
    if loaded.module.space.num_states <= MAX_EXACT_STATES:
        return "enumeration"
    num_hidden = num_hidden_units(loaded.module.target)
    return "the sum over hidden units" if num_hidden is not None and 2**num_hidden <= MAX_EXACT_STATES else None


def exact_values(loaded: LoadedRun) -> dict[str, float]:
    """log Z and the mean log-likelihoods in nats, by the sum that ``exact_way`` names."""
    by_points = exact_way(loaded) == "enumeration"
    module = loaded.module.cpu()
    log_z = exact_log_z(module.target) if by_points else hidden_log_z(module.target)
    values = {"log_z": log_z}
    for name, split in (("val", "validation"), ("test", "test")):
        codes, weights = loaded.data.splits.parts[split]
        values[name] = float(weighted_mean(unnormalised_log_prob(module.target, codes), weights)) - log_z
    return values

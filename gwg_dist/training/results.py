"""What a run has found: the closing estimate, its table, its JSON, and an estimate that waits to be finished."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from rich.table import Table

from gwg_dist.callbacks import LEAST_CHAINS, Underway, assess_module
from gwg_dist.evaluation import Assessment, TunedPath, Unfinished, collapse_warning, describe
from gwg_dist.spaces import Space
from gwg_dist.tools.distributed import from_rank_0, launched_rank, world_size
from gwg_dist.tools.errors import InputError, Stopped
from gwg_dist.tools.files import replacing, surviving, write_json
from gwg_dist.tools.provenance import provenance
from gwg_dist.tools.terminal import console, make_progress, say
from gwg_dist.training.checkpoints import newest_checkpoint, read_checkpoint
from gwg_dist.training.family import write_family
from gwg_dist.training.folder import BEST, EVALUATION, LAST, RESULTS, SHOWN
from gwg_dist.training.loading import LoadedRun, load_weights
from gwg_dist.training.rounds import Rounds, Wanted
from gwg_dist.training.sides_shown import (
    STANDING_STYLES,
    evaluations_json,
    judged,
    likelihood_style,
    likelihood_table,
    sides_json,
    ways,
)
from gwg_dist.training.verdict import Training, Verdict, bits_per_dim, next_commands, tell_verdict
from gwg_dist.training.waiting import Waiting

FEWER = 4  # forward chains for one of the other side, in the closing estimate


def assessment_table(assessment: Assessment, space: Space, *, title: str) -> Table:
    """Likelihoods in nats and bits a site, with what to think of them in the caption."""
    estimate, style = assessment.estimate, likelihood_style(assessment)
    table = Table(title=title, caption=estimate.note, title_justify="left", caption_justify="left", pad_edge=False)
    for column in ("split", "points", "reference", "log-likelihood", "± log Z", "± data", "bits/dim"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, value in assessment.likelihoods.items():
        table.add_row(
            name,
            f"{value.num}",
            f"{assessment.reference[name]:.2f}",
            f"[{style}]{value.mean:.2f}[/]",
            f"{value.stderr:.2f}",
            f"{value.data_stderr:.2f}",
            f"{bits_per_dim(-value.mean, space):.3f}",
        )
    table.add_section()
    num = len(estimate.log_weights)
    table.add_row(
        estimate.short_name,
        f"{num} chains",
        f"T = {estimate.num_temperatures}",
        f"log Z {estimate.log_z:.2f}",
        f"{estimate.error:.2f}",
        f"ESS {estimate.ess:.0f}",
        "",
    )
    return table


def assessment_json(assessment: Assessment, space: Space, checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The same as plain numbers."""
    return {
        "checkpoint": path.name,
        "iteration": checkpoint["global_step"],
        "unit": "nats",
        "note": assessment.estimate.note,
        "likelihood": {name: plain(value._asdict()) for name, value in assessment.likelihoods.items()},
        "reference": assessment.reference,
        "bits_per_dim": {name: bits_per_dim(-v.mean, space) for name, v in assessment.likelihoods.items()},
        "verdict": Verdict.of(assessment, space).json(),
        "ais": {
            **plain({"log_z": assessment.estimate.log_z, "stderr": assessment.estimate.stderr}),
            "interval": [end if math.isfinite(end) else None for end in assessment.estimate.interval],
            "ess": assessment.estimate.ess,
            "collapsed": assessment.collapsed,
            "num_chains": len(assessment.estimate.log_weights),
            **({"num_systems": assessment.estimate.num_systems} if assessment.estimate.num_systems else {}),
            "num_temperatures": assessment.estimate.num_temperatures,
            **pilot_json(assessment.estimate.path),
        },
    }


def plain(values: dict[str, float]) -> dict[str, float | None]:
    """The same numbers as JSON has them: null for those that are not finite."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def pilot_json(path: TunedPath | None) -> dict[str, Any]:
    """What a pilot run found: the field that depends on beta, and its values in equal parts of [0, 1]."""
    if path is None:
        return {}
    return {
        "pilot": {
            "kernel": str(path.sampler),
            "field": path.sampler.tunable,
            "values": list(path.values),
            "knots": list(path.knots),
        }
    }


def report(
    trainer: Trainer, objects: Namespace, folder: Path, *, seconds: float, stop: Callable[[], bool] | None
) -> None:
    """Evaluate the chosen weights with the final settings, on all ranks; print and write the results.

    A disk that is full costs a line: what has been estimated is printed in any case.
    """
    path, checkpoint, assessment = final_evaluation(trainer, objects, folder, stop)
    if launched_rank() != 0:
        return
    module, iterations = objects.model, trainer.global_step
    training = Training(iterations, objects.data.batch_size, training_metrics(trainer))
    tell_likelihood(assessment, module.space, title=title_of(path, checkpoint))
    with surviving(RESULTS):
        values = assessment_json(assessment, module.space, checkpoint, path)
        values["gradient_evaluations"] = evaluations_json(assessment)
        if assessment.sides is not None:
            values["sides"] = sides_json(assessment, judged(assessment), module.space)
        values |= {"training": training._asdict(), "made by": provenance(trainer.strategy.root_device)}
        write_json(folder / RESULTS, values)
    with surviving("samples beside the data"):
        write_family(module, objects.data, checkpoint, folder)
    if assessment.collapsed:
        say(collapse_warning(assessment), "bold red")
    if path.name == LAST:
        say("these are the last weights: no evaluation during training found better ones")
    shown = ", ".join(name for name in SHOWN if (folder / name).exists())
    say(f"{iterations} iterations, {seconds:.0f} s\nresults in {folder}: {shown}")
    tell_verdict(assessment, module, folder, training)
    say(next_commands(folder, iterations, has_chains=checkpoint["chains"]["packed"] is not None))


def tell_likelihood(assessment: Assessment, space: Space, *, title: str) -> None:
    """Print the likelihoods, from both sides where there are both: then the verdict on them, and the ways to log Z."""
    if assessment.sides is None:
        console.print(assessment_table(assessment, space, title=title))
        return
    standing = judged(assessment)
    console.print(likelihood_table(assessment, space, title=title))
    say(ways(assessment.sides))
    say(standing.sentence(), STANDING_STYLES[standing.kind])


def training_metrics(trainer: Trainer) -> dict[str, float]:
    """The newest metrics of training by name, those that are finite."""
    found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def training_of(folder: Path, checkpoint: dict[str, Any], batch_size: int) -> Training:
    """How a run was trained: what its results.json says, else what its checkpoint does."""
    try:
        return Training(**json.loads((folder / RESULTS).read_text())["training"])
    except (OSError, ValueError, KeyError, TypeError):  # an older run, one that has not ended, a torn file
        return Training(checkpoint["global_step"], batch_size, {})


def title_of(path: Path, checkpoint: dict[str, Any]) -> str:
    """What a table of results is of."""
    return f"{path.name} (iteration {checkpoint['global_step']})"


def final_evaluation(
    trainer: Trainer, objects: Namespace, folder: Path, stop: Callable[[], bool] | None
) -> tuple[Path, dict[str, Any], Assessment]:
    """The best weights, against the last ones where those are newer or their own evaluation could not decide.

    The better by the lower side of validation is returned, a trustworthy estimate before a collapsed one; where that is
    the last, it becomes best.ckpt. Raises Stopped where ``stop`` says so; the next call goes on with the estimate it
    stopped in.
    """
    paths = candidates(folder, undecided=objects.evaluation.undecided) if launched_rank() == 0 else []
    found = []
    for each in from_rank_0(paths):
        path, checkpoint, assessment = closing_estimate(each, trainer, objects, stop)
        found.append((path, checkpoint, from_both_sides(assessment, path, checkpoint, objects, stop)))
    path, checkpoint, assessment = max(found, key=lambda entry: _merit(entry[2]))
    load_weights(objects.model, checkpoint)
    if launched_rank() == 0:
        for other, contents, judged in found:
            if other != path:
                say(f"{title_of(other, contents)} is not the better one: {describe(judged)}")
        if path.name == LAST and not assessment.collapsed:
            with surviving(BEST), replacing(folder / BEST) as beside:
                shutil.copyfile(path, beside)
    return path, checkpoint, assessment


def candidates(folder: Path, *, undecided: bool) -> list[Path]:
    """The checkpoints that are to be judged after training; the last one alone where no other can be read."""
    best, last = folder / BEST, folder / LAST
    iterations = readable([best, last])
    newer = undecided or iterations.get(last, 0) > iterations.get(best, 0)
    return [path for path in iterations if path == best or newer] or [last]


def closing_estimate(
    path: Path, trainer: Trainer, objects: Namespace, stop: Callable[[], bool] | None
) -> tuple[Path, dict[str, Any], Assessment]:
    """Assess the weights of a checkpoint with the final settings, or go on with the estimate of them that waits.

    Raises Stopped where ``stop`` says so; the estimate waits in the run's folder then.
    """
    module = objects.model
    path, checkpoint = newest_checkpoint(path)
    load_weights(module, checkpoint)
    module.to(trainer.strategy.root_device)
    waiting = Waiting(path.parent / EVALUATION / f"closing-{path.stem}.partial.pt", checkpoint)
    with make_progress() as progress:
        outcome = assess_module(
            module,
            objects.data.splits,
            objects.evaluation.final_settings,
            Underway(
                checkpoint["global_step"],
                progress if launched_rank() == 0 else None,
                stop,
                unfinished=waiting.read(),
            ),
        )
    if isinstance(outcome, Unfinished):
        waiting.write(outcome)
        raise Stopped(0)
    waiting.delete()
    return path, checkpoint, outcome


def from_both_sides(
    assessment: Assessment,
    path: Path,
    checkpoint: dict[str, Any],
    objects: Namespace,
    stop: Callable[[], bool] | None,
) -> Assessment:
    """The assessment with log Z from the run's chains as well, a quarter as many; called on every rank.

    A run without chains has none, and an estimate that has collapsed needs none. Raises Stopped where ``stop`` says so;
    the estimate waits in the run's folder then.
    """
    if checkpoint["chains"]["packed"] is None or assessment.collapsed:
        return assessment
    module, settings = objects.model, objects.evaluation.final_settings
    load_weights(module, checkpoint)
    num = min(max(settings.num_chains // FEWER, LEAST_CHAINS, world_size()), settings.num_chains)
    waiting = Waiting(path.parent / EVALUATION / f"closing-{path.stem}-other-side.partial.pt", checkpoint)
    with make_progress() as progress:
        rounds = Rounds(
            LoadedRun(module, objects.data, checkpoint, path),
            Wanted(settings, num_starts=num),
            waiting,
            stop or (lambda: False),
            progress if launched_rank() == 0 else None,
        )
        rounds.take_forward(assessment.estimate)
        found = rounds.go()
    if found is None:
        raise Stopped(0)
    return found


def readable(paths: list[Path]) -> dict[Path, int]:
    """Those of the checkpoints that are there and whole, and their iterations."""
    found = {}
    for path in paths:
        if path.is_file():
            try:
                contents = read_checkpoint(path)
            except InputError as error:
                say(f"left out: {error}")
            else:
                found[path] = contents.get("global_step", 0)
    return found


def _merit(assessment: Assessment) -> tuple[bool, float]:
    """What assessments are compared by: whether they can be trusted, then the lower side of validation."""
    return not assessment.collapsed, assessment.between("val")[0] if "val" in assessment.likelihoods else 0.0

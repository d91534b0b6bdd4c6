"""The verdict on a run: better or worse than the factorised reference, by how much, why, and what to try."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gwg_dist.chains import ChainBuffer
from gwg_dist.evaluation import Assessment, judge
from gwg_dist.evaluation.verdict import UNQUOTABLE
from gwg_dist.module import EBMModule
from gwg_dist.spaces import Space
from gwg_dist.tools import trust
from gwg_dist.tools.terminal import say
from gwg_dist.training.folder import BEST, CONFIG

ERRORS = 2.0  # standard errors within which a difference is none
HIGH_LAG = 25.0  # chains that lag further behind the model no longer tell of it
LOW_ACCEPTANCE = 0.02
MANY_TEMPERATURES = 20_000
DEAD_SPREAD = 1e-3  # nats between the energies of two points, below which the model is its reference
BETTER, WORSE, NO_BETTER, UNKNOWN = "better", "worse", "no better", "unknown"
COLLAPSED, NOT_QUOTABLE = "the estimate has collapsed", "its likelihood is not to be quoted"
STYLES = {BETTER: "bold green", WORSE: "bold red", NO_BETTER: "bold yellow", UNKNOWN: "bold red"}


def bits_per_dim(nats: float, space: Space) -> float:
    """Nats a point as bits a site."""
    return nats / (space.num_sites * math.log(2))


class Verdict(NamedTuple):
    """A model against the factorised reference of its data.

    Args:
        kind: "better", "worse", "no better" (within two standard errors), or "unknown" (an estimate that collapsed or
            whose sides say that it is not to be quoted).
        split: the data that it is of; "" where nothing is held out.
        gain: mean log p(x) - log ref(x), nats.
        stderr: standard error of the gain: that of log Z and that of the paired differences.
        bits: the gain in bits a site.
        spread: standard deviation of the energy over the data, nats; NaN where it is not known.
        why: what speaks against the estimate where it is unknown.
    """

    kind: str
    split: str = ""
    gain: float = math.nan
    stderr: float = math.nan
    bits: float = math.nan
    spread: float = math.nan
    why: str = ""

    @classmethod
    def of(cls, assessment: Assessment, space: Space) -> Verdict:
        """By the test data, or by the validation data where there is no test; by both sides where there are both."""
        split = next((name for name in ("test", "val") if name in assessment.gains), "")
        if not split:
            return cls(UNKNOWN)
        found, sides = assessment.gains[split], assessment.sides
        gain, error = found.mean, found.stderr
        if sides is not None:
            gain, error = gain + assessment.estimate.log_z - sides.log_z, sides.stderr
        stderr, why = math.hypot(error, found.data_stderr), ""
        if sides is not None and sides.exact is None and judge(sides).kind == UNQUOTABLE:
            kind, why = UNKNOWN, NOT_QUOTABLE
        elif (assessment.collapsed and (sides is None or sides.exact is None)) or not math.isfinite(gain):
            kind, why = UNKNOWN, COLLAPSED
        elif abs(gain) <= ERRORS * stderr:
            kind = NO_BETTER
        else:
            kind = BETTER if gain > 0 else WORSE
        spread = found.data_stderr * math.sqrt(found.num)
        return cls(kind, split, gain, stderr, bits_per_dim(gain, space), spread, why)

    def sentence(self) -> str:
        """One line for people."""
        if self.kind == UNKNOWN:
            why = (self.why or COLLAPSED) if self.split else "no data are held out"
            return f"verdict: unknown whether the model is better than its reference: {why}"
        size = f"± {self.stderr:.2f} nats on {self.split} ({self.bits:+.3f} bits/dim)"
        if self.kind == NO_BETTER:
            return f"verdict: no better than the reference: the difference is {self.gain:+.2f} {size}"
        return f"verdict: {self.kind} than the reference by {abs(self.gain):.2f} {size}"

    def json(self) -> dict[str, Any]:
        """As plain numbers; null for what is not known."""
        known = self._asdict().items()
        return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in known}


class Advice(NamedTuple):
    """What a run's own numbers say of why it is no better.

    Args:
        cause: what was found; "" where nothing was.
        changes: settings of another run, by key; none where this one is to go on.
    """

    cause: str
    changes: dict[str, Any]


class Training(NamedTuple):
    """What is known of how a model was trained.

    Args:
        iterations: iterations done.
        batch_size: points in an iteration.
        metrics: newest metrics of training by name.
    """

    iterations: int
    batch_size: int
    metrics: Mapping[str, float]


def advise(verdict: Verdict, module: EBMModule, training: Training) -> Advice:
    """The first cause that the numbers show, and the settings that it points at.

    Args:
        verdict: what was found of the model.
        module: the model with the settings it was trained with.
        training: how it was trained; of its metrics, train/lag and train/accept_prob are looked at.
    """
    metrics = training.metrics
    lag, acceptance = metrics.get("train/lag", 0.0), metrics.get("train/accept_prob", 1.0)
    slower = {"model.learning_rate": float(f"{module.learning_rate / 3:.2g}")}
    if verdict.spread < DEAD_SPREAD:
        return Advice("the energy tells no two points apart", slower)
    if acceptance < LOW_ACCEPTANCE:
        return Advice(f"chains stand still: {acceptance:.3f} of the proposals are accepted", slower)
    if lag > HIGH_LAG:
        return Advice(
            f"chains lag behind the model (train/lag {lag:.0f}, above {HIGH_LAG:.0f}): more steps, fewer chains",
            more_moves(module, training.batch_size),
        )
    return Advice("", slower | more_moves(module, training.batch_size) if verdict.kind == WORSE else {})


def more_moves(module: EBMModule, batch_size: int) -> dict[str, Any]:
    """Settings by which each chain moves more often."""
    if not module.objective.needs_chains:
        return {}
    changes: dict[str, Any] = {"model.num_steps": 2 * module.num_steps}
    if isinstance(module.chains, ChainBuffer):
        fewer = max(module.chains.size // 4, batch_size)
        if fewer < module.chains.size:
            changes["model.chains.size"] = fewer
    return changes


def quoted(path: Path) -> str:
    """A path as a shell takes it for an argument."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def opened(folder: Path) -> str:
    """A run's folder as an argument, with ``--trust`` where its settings name classes from outside the package."""
    config = folder / CONFIG
    settings = yaml.safe_load(config.read_text()) if config.is_file() else {}
    return quoted(folder) + trust.option_for(settings)


def another_run(folder: Path, changes: Mapping[str, Any]) -> str:
    """The command line of a run with other settings, beside this one."""
    number = 2
    while (other := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    settings = "".join(f" --{key}={value}" for key, value in changes.items())
    settings += opened(folder).removeprefix(quoted(folder))
    return f"python -m gwg_dist.fit --config {quoted(folder / CONFIG)} --run_dir {quoted(other)}{settings}"


def going_on(folder: Path, iterations: int) -> str:
    """The command line by which a run goes on to twice its length."""
    return f"python -m gwg_dist.fit --resume {opened(folder)} --trainer.max_steps {2 * iterations}"


def checkpoint_option(folder: Path) -> str:
    """What names the checkpoint of a run on the command lines of verbs: nothing where it has a best one."""
    return "" if (folder / BEST).is_file() else " --checkpoint last"


def to_try(verdict: Verdict, advice: Advice, folder: Path, iterations: int, *, num_temperatures: int) -> str:
    """A command line that the verdict asks for; "" where it asks for none."""
    if verdict.kind == BETTER:
        return ""
    if verdict.kind == UNKNOWN and not advice.cause:
        more = max(10 * num_temperatures, MANY_TEMPERATURES)
        return f"python -m gwg_dist.evaluate {opened(folder)} --num_temperatures {more}{checkpoint_option(folder)}"
    return another_run(folder, advice.changes) if advice.changes else going_on(folder, iterations)


def tell_verdict(assessment: Assessment, module: EBMModule, folder: Path, training: Training) -> Verdict:
    """Print the verdict on the model of a run; where it is not a good one, its cause and a command line to try."""
    verdict = Verdict.of(assessment, module.space)
    say(verdict.sentence(), STYLES[verdict.kind])
    if verdict.kind != BETTER:
        advice = advise(verdict, module, training)
        if advice.cause:
            say(f"cause:   {advice.cause}")
        temperatures = assessment.estimate.num_temperatures
        say(f"try:     {to_try(verdict, advice, folder, training.iterations, num_temperatures=temperatures)}")
    return verdict


def next_commands(folder: Path, iterations: int, *, has_chains: bool) -> str:
    """Command lines for what one may want next, as a shell takes them."""
    checkpoint = checkpoint_option(folder)
    lines = (
        f"python -m gwg_dist.sample {opened(folder)} --num 64{'' if has_chains else ' --start reference'}{checkpoint}",
        f"python -m gwg_dist.evaluate {opened(folder)} --num_temperatures {MANY_TEMPERATURES}{checkpoint}",
        going_on(folder, iterations),
    )
    return "next:    " + f"\n{'':9}".join(lines)

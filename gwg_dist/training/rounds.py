"""Estimates of log Z from both sides, again and again with twice the chains and temperatures, until the sides meet.

What is done lies in a file: a killed process loses at most a minute, and the next call goes on bit for bit.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.progress import Progress
from torch import Tensor

from gwg_dist.callbacks import Underway, forward_of, held_out, in_eval_mode, reverse_of, settled_of
from gwg_dist.evaluation import (
    AISResult,
    AISSettings,
    AnnealPoint,
    Assessment,
    Trace,
    TunedPath,
    Unfinished,
    assessment_of,
    judge,
    ladder_of,
    sides_of,
)
from gwg_dist.evaluation.ais import estimate_of, summarize
from gwg_dist.evaluation.reverse import ReverseResult
from gwg_dist.evaluation.verdict import AGREED, TOLERANCE
from gwg_dist.module import EBMModule
from gwg_dist.samplers.run import chains_running
from gwg_dist.tools.distributed import any_rank, from_rank_0, gather_rows, rank, share, world_size
from gwg_dist.tools.terminal import say
from gwg_dist.training.loading import LoadedRun
from gwg_dist.training.starts import chains_of, origin_of, training_part
from gwg_dist.training.waiting import Waiting

KEEP_SECONDS = 60.0  # between two writings of what is done


class Wanted(NamedTuple):
    """What a round is to be, and when to stop.

    Args:
        settings: chains and temperatures of the first round.
        two_sided: whether the reverse side is estimated too.
        until_gap: nats within which the sides are to meet; None for one round.
        max_minutes: minutes after which no other round is finished.
        starts: points that reverse runs begin at, codes ``(N, D)``; None for the run's own chains.
        num_starts: reverse chains; None for as many as forward ones.
    """

    settings: AISSettings
    two_sided: bool = True
    until_gap: float | None = None
    max_minutes: float = 30.0
    starts: Tensor | None = None
    num_starts: int | None = None

    def asked(self) -> dict[str, Any]:
        """What numbers depend on, as plain values: rounds that wait go on under the same alone."""
        given = None if self.starts is None else hashlib.sha256(self.starts.cpu().numpy().tobytes()).hexdigest()
        others = {"two_sided": self.two_sided, "starts": given, "num_starts": self.num_starts, "ranks": world_size()}
        return asdict(self.settings) | others


class Round(NamedTuple):
    """What is known of a round; tensors on the CPU, of all ranks.

    Args:
        num_chains: forward chains.
        num_temperatures: temperatures of each direction.
        forward: log weights, ``(N,)``; None where the forward side is not done.
        ends: packed ends of the forward chains.
        values: of the pilot run, see ``TunedPath``; None where there was none.
        knots: its schedule, see ``TunedPath``; empty where it is a fixed one.
        starts: packed points that reverse runs begin at.
        drift: see ``Sides``.
        reverse: log weights, ``(M,)``; None where the reverse side is not done.
        rungs: log weights and f of all chains by the number of temperatures, ``(2, N)`` each, forwards and backwards.
        added: what resampling has added to the forward log weights, ``(N,)``; None where nothing resamples.
    """

    num_chains: int
    num_temperatures: int
    forward: Tensor | None = None
    ends: Tensor | None = None
    values: tuple[float, ...] | None = None
    knots: tuple[float, ...] = ()
    starts: Tensor | None = None
    drift: float = float("nan")
    reverse: Tensor | None = None
    rungs: tuple[dict[int, Tensor], dict[int, Tensor]] | None = None
    added: Tensor | None = None

    @classmethod
    def new(cls, num_chains: int, num_temperatures: int) -> Round:
        """Nothing of it is done."""
        return cls(num_chains, num_temperatures, rungs=({}, {}))

    def traces(self, betas: Tensor) -> tuple[Trace, Trace] | None:
        """Both directions at their rungs; None where a direction was not kept from its beginning."""
        found = []
        for kept, path in zip(self.rungs or (), (betas, betas.flip(0)), strict=False):
            if not {0, self.num_temperatures} <= kept.keys():
                return None
            at = sorted(kept)
            found.append(Trace(path[at], *torch.stack([kept[t] for t in at], 1).unbind()))
        return (found[0], found[1]) if found else None


@dataclass
class State:
    """Where the rounds are; as a dict it is what a file holds.

    Args:
        now: the round that goes on.
        done: the last one that is done.
        unfinished: chains of the side that goes on.
        seconds: time spent.
        rows: chains, temperatures, forward, reverse and Bennett's log Z of each round that is done.
        asked: see ``Wanted``.
    """

    now: Round
    done: Round | None = None
    unfinished: Unfinished | None = None
    seconds: float = 0.0
    rows: list[tuple[int, int, float, float, float]] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)

    def where(self) -> str:
        """How far it is, in words; "" at the beginning."""
        if self.unfinished is not None:
            side = "" if self.now.forward is None else "reverse "
            return f"{self.unfinished.t} of {self.unfinished.num_temperatures} {side}temperatures"
        if self.now.forward is not None:
            return "the forward side"
        return "" if self.done is None else f"a round of {self.done.num_temperatures} temperatures"

    def values(self) -> dict[str, Any]:
        """Plain values, safe to load from a file."""
        return {
            "now": self.now._asdict(),
            "done": None if self.done is None else self.done._asdict(),
            "unfinished": None if self.unfinished is None else self.unfinished._asdict(),
            "seconds": self.seconds,
            "rows": self.rows,
            "asked": self.asked,
        }

    @classmethod
    def of(cls, values: dict[str, Any] | None, wanted: Wanted) -> State:
        """What ``values`` say, or the beginning; the beginning too where they are of another order, which is said."""
        asked, settings = wanted.asked(), wanted.settings
        if values is None or values.get("asked") != asked:
            if values is not None and rank() == 0:
                before = values.get("asked", {})
                differ = [name.replace("_", " ") for name, value in asked.items() if before.get(name) != value]
                say(f"the estimate that waits is of other settings ({', '.join(differ)}): beginning anew")
            return cls(Round.new(settings.num_chains, settings.num_temperatures), asked=asked)
        done, unfinished = values["done"], values["unfinished"]
        return cls(
            Round(**values["now"]),
            None if done is None else Round(**done),
            None if unfinished is None else Unfinished(**unfinished),
            values["seconds"],
            [tuple(row) for row in values["rows"]],
            asked,
        )


class Rounds:
    """The rounds of one model; every method is called on all ranks.

    Args:
        run: the model, with data and chains.
        wanted: what is to be done.
        waiting: the file in which the rounds wait.
        stop: asked every few temperatures, on all ranks at the same one, whether to stop.
        progress: where to show bars.
    """

    def __init__(
        self, run: LoadedRun, wanted: Wanted, waiting: Waiting, stop: Callable[[], bool], progress: Progress | None
    ) -> None:
        self.run, self.wanted, self.waiting, self.told, self.progress = run, wanted, waiting, stop, progress
        self.state = State.of(waiting.held(), wanted)
        self.module: EBMModule = run.module
        self.iteration: int = run.checkpoint["global_step"]
        self.begun = self.kept = time.monotonic()
        self.spent_before = self.state.seconds
        self.stopped = False

    def take_forward(self, estimate: AISResult) -> None:
        """Take the forward side of the first round from an estimate that is done."""
        if self.state.now.forward is None:
            ends = gather_rows(self.module.space.pack(estimate.codes)).cpu()
            values, knots = (None, ()) if estimate.path is None else (estimate.path.values, estimate.path.knots)
            known = {"forward": estimate.log_weights, "ends": ends, "values": values, "knots": knots}
            self.state.now = self.state.now._replace(**known, added=estimate.added)

    def go(self) -> Assessment | None:
        """Do rounds until they are enough; None where ``stop`` said so before the first was done."""
        while True:
            before = self.state.seconds
            if not self._round():
                self._hold()
                return None if self.stopped or self.state.done is None else self.assessment(self.state.done)
            took = self._seconds() - before
            found = self.assessment(self.state.now)
            self.state.done, self.state.seconds = self.state.now, self._seconds()
            following = self._next(found, took)
            if following is None:
                self.waiting.delete()
                return found
            self.state.now = Round.new(*following)
            self._hold()
            if rank() == 0 and found.sides is not None:
                standing = judge(found.sides, tolerance=self.wanted.until_gap or TOLERANCE)
                chains, temperatures = following
                say(f"{standing.sentence()}; again with {chains} chains, {temperatures} temperatures")

    def assessment(self, done: Round | None) -> Assessment:
        """What follows from a round that is done."""
        assert done is not None
        assert done.forward is not None
        assert done.ends is not None
        module, space, target = self.module, self.module.space, self.module.target
        mine = share(len(done.ends), rank(), world_size())
        ends = space.unpack(done.ends[mine].to(module.device))
        path = self._path(done)
        forward = estimate_of(
            done.forward, ends, done.num_temperatures, num_systems=self.wanted.settings.num_systems
        )._replace(path=path, added=done.added)
        with in_eval_mode(module):
            splits = held_out(self.run.data.splits)
            found = assessment_of(forward, target, splits)
            if done.reverse is None or done.starts is None:
                return found
            if not bool(torch.isfinite(torch.cat([done.forward, done.reverse])).all()):
                return found
            log_inverse, stderr, ess = summarize(done.reverse)
            reverse = ReverseResult(-log_inverse, stderr, ess, done.reverse, done.num_temperatures)
            starts = space.unpack(done.starts.to(module.device))
            data = [codes for codes, _ in (splits | training_part(self.run.data)).values()]
            sides = sides_of(forward, reverse, target, starts, data, drift=done.drift)
        given = self.wanted.starts is not None
        before = 0 if given else done.num_temperatures // 2
        sides = replace(sides, origin="a file" if given else origin_of(self.run), steps_before=before)
        betas = replace(self.wanted.settings, num_temperatures=done.num_temperatures).betas(path)
        traces = done.traces(betas)
        return replace(found, sides=sides if traces is None else replace(sides, ladder=ladder_of(*traces)))

    def _path(self, done: Round) -> TunedPath | None:
        """What a round's pilot run found."""
        if done.values is None:
            return None
        return TunedPath(self.module.sampler.annealed(), tuple(done.values), tuple(done.knots))

    def _round(self) -> bool:
        """The rest of the present round; whether it came to its end."""
        settings = replace(
            self.wanted.settings, num_chains=self.state.now.num_chains, num_temperatures=self.state.now.num_temperatures
        )
        return self._forward(settings) and (
            not self.wanted.two_sided or (self._starts(settings) and self._reverse(settings))
        )

    def _forward(self, settings: AISSettings) -> bool:
        if self.state.now.forward is not None:
            return True
        found = forward_of(self.module, settings, self._underway(0))
        if isinstance(found, Unfinished):
            self.state.unfinished = found
            return False
        self.state.unfinished = None
        self.take_forward(found)
        self._keep(lambda: None)
        return True

    def _starts(self, settings: AISSettings) -> bool:
        """Points of the model: those that were given, or the run's chains after half as many steps again."""
        if self.state.now.starts is not None:
            return True
        module, num = self.module, self.wanted.num_starts or settings.num_chains
        num_steps = settings.num_temperatures // 2
        if self.wanted.starts is not None:
            codes, num_steps = self.wanted.starts[:num], 0
        else:
            codes = from_rank_0(chains_of(self.run, num, self.iteration))
        found = settled_of(module, codes, num_steps, self._underway(1))
        if found is None:
            return False
        self.state.now = self.state.now._replace(starts=module.space.pack(found.codes).cpu(), drift=found.drift)
        self._keep(lambda: None)
        return True

    def _reverse(self, settings: AISSettings) -> bool:
        now, module = self.state.now, self.module
        assert now.starts is not None
        starts = module.space.unpack(now.starts.to(module.device))
        found = reverse_of(module, settings, starts, self._underway(1), path=self._path(now))
        if isinstance(found, Unfinished):
            self.state.unfinished = found
            return False
        self.state.unfinished = None
        self.state.now = now._replace(reverse=found.log_weights)
        return True

    def _underway(self, direction: int) -> Underway:
        return Underway(
            self.iteration, self.progress, self._stop, self.state.unfinished, self._keep, partial(self._note, direction)
        )

    def _note(self, direction: int, point: AnnealPoint) -> None:
        """Keep log weights and f of all chains at a rung."""
        rungs = self.state.now.rungs
        if rungs is None or self.wanted.settings.num_systems:  # works between rungs are of chains that were not copied
            return
        with chains_running(self.module.target, point.x):
            f = self.module.target.f(point.x).double()
        rungs[direction][point.t] = gather_rows(torch.stack([point.log_weights, f], 1)).T.contiguous().cpu()

    def _next(self, found: Assessment, took: float) -> tuple[int, int] | None:
        """Chains and temperatures of another round; None where the sides meet, or where time would not do."""
        sides, now, gap = found.sides, self.state.now, self.wanted.until_gap
        if gap is None or sides is None:
            return None
        self.state.rows.append(
            (now.num_chains, now.num_temperatures, sides.forward.log_z, sides.reverse.log_z, sides.both.log_z)
        )
        if judge(sides, tolerance=gap).kind == AGREED:
            return None
        left = 60 * self.wanted.max_minutes - self._seconds()
        chains, temperatures = 2 * now.num_chains, 2 * now.num_temperatures
        fits = (chains, temperatures) if 4 * took <= left else (now.num_chains, temperatures)
        return from_rank_0(fits if 2 * took <= left else None)

    def _stop(self) -> bool:
        """Whether a signal came; or time is up, and there is a round to fall back on."""
        if self.told():
            self.stopped = True
            return True
        late = self.state.done is not None and self._seconds() > 60 * self.wanted.max_minutes
        return any_rank(int(late and rank() == 0), self.module.device) != 0

    def _keep(self, unfinished: Callable[[], Unfinished | None]) -> None:
        """Write what is done where the last writing is long ago; None between two parts of a round."""
        due = rank() == 0 and time.monotonic() - self.kept > KEEP_SECONDS
        if any_rank(int(due), self.module.device):
            self.state.unfinished = unfinished()
            self._hold()

    def _hold(self) -> None:
        self.kept = time.monotonic()
        self.state.seconds = self._seconds()
        self.waiting.hold(self.state.values())

    def _seconds(self) -> float:
        return self.spent_before + time.monotonic() - self.begun

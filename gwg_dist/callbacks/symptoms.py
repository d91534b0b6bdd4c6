"""What is wrong with a run, in words and while its numbers still mean something, with the setting to change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gwg_dist.batch import weighted_mean
from gwg_dist.callbacks.diagnosis import ANOTHER_KERNEL, LAGGING, kernel_setting
from gwg_dist.callbacks.estimates import in_eval_mode
from gwg_dist.callbacks.guard import DivergenceGuard
from gwg_dist.evaluation.exact import unnormalised_log_prob
from gwg_dist.evaluation.labels import label_probs
from gwg_dist.module import LAG_EVERY, EBMModule
from gwg_dist.samplers import Sampler, Target
from gwg_dist.samplers.tuners import allowed, tunable_value, value_of
from gwg_dist.tools.distributed import all_sum, world_size
from gwg_dist.tools.terminal import say

LOOKS = 5  # that are averaged over
REFUSED = 0.05  # of the proposals accepted, below which chains are as good as stopped
STILL = 0.02  # sites of a chain that change in an iteration, below which it stands still
APART = 2.5  # standard deviations of the energy between data and chains
OUTRUN = 0.4  # of them, below the data, where chains lag far behind the model
SETTLING = 200  # iterations in which chains and data may lie apart, and the model runs ahead
FALLS, ERRORS = 2, 2.0  # evaluations since the best one, and standard errors that validation has fallen by
BOUND = 0.2  # of acceptance, by which a setting that can go no further misses what serves a kernel best
RUNAWAY = 1000.0  # times, or a part of, the setting's first value: as far as a search for it is followed
CHANCE = 2.0  # standard errors of the share of labels that are found, above that of the commonest label
MOSTLY = 0.5  # share of the commonest label above which naming it alone is no fault
AGAIN = 500  # iterations without a symptom after which it is said anew
MOST_TRAINING = 1000  # training points that are held against the validation points


class Symptom(NamedTuple):
    """Something that is wrong with a run.

    Args:
        name: one word; it is logged as symptom/NAME.
        what: what was measured, in words.
        helps: the setting to change.
        slower: whether an earlier state and a lower learning rate mend it.
    """

    name: str
    what: str
    helps: str
    slower: bool = False

    @property
    def sentence(self) -> str:
        """One line for people."""
        return f"{self.what}; {self.helps} helps"


class Look(NamedTuple):
    """Means over the last looks at a run, of all ranks.

    Args:
        accept_prob: mean acceptance probability.
        hops: mean number of sites changed a step.
        gap: mean E of the chains minus mean E of the data, nats.
        spread: standard deviation of E over data and chains together, nats.
        lag: see ``chain_lag``.
    """

    accept_prob: float
    hops: float
    gap: float
    spread: float
    lag: float

    @property
    def apart(self) -> float:
        """The gap in standard deviations of E within data and within chains.

        Two groups of equal size that are a gap apart have a variance of within^2 + gap^2 / 4 together.
        """
        within = self.spread**2 - self.gap**2 / 4
        return abs(self.gap) / math.sqrt(within) if within > 0 else math.inf


def of_chains(look: Look, module: EBMModule) -> Iterator[Symptom]:
    """Whether the chains move at all.

    Args:
        look: means over the last looks.
        module: the run's module.
    """
    accepted, changed = look.accept_prob, look.hops * module.num_steps
    setting, best = kernel_setting(module), module.sampler.target_acceptance
    if accepted < REFUSED:
        yield Symptom(
            "refused", f"{accepted:.1%} of the proposals are accepted: chains are as good as stopped", setting
        )
    elif changed < STILL:
        still = f"chains stand still: {changed:.2g} sites of a chain change in an iteration"
        yield Symptom("frozen", still, f"{setting}, or more model.num_steps,")
    elif accepted < best / 2 and setting != ANOTHER_KERNEL:
        few = f"{accepted:.0%} of the proposals are accepted, less than half of the {best:.0%} that serve a kernel best"
        yield Symptom("inefficient", few, setting)


def of_setting(look: Look, sampler: Sampler, target: Target, first: float | None) -> Iterator[Symptom]:
    """Whether the setting of the kernel that a run may tune is as small or as large as it can be, and serves badly.

    Where a kernel is accepted too seldom at the end of the range on the side where it is accepted more often, no value
    of the setting helps. One that has no end is followed a thousandfold.

    Args:
        look: means over the last looks.
        sampler: the kernel.
        target: the model.
        first: the setting's value as the run began; None where there is no such setting.
    """
    accepted, best = look.accept_prob, sampler.target_acceptance
    if sampler.tunable is None or first is None or abs(accepted - best) < BOUND:
        return
    value, rises = value_of(sampler), (accepted < best) == sampler.acceptance_rises
    whole = isinstance(value, int)
    further = (value + 1 if whole else 1.1 * value) if rises else (value - 1 if whole else value / 1.1)
    ratio = value / first if rises else first / value
    is_last = further < 1 if whole and not rises else allowed(sampler, further, target) is None
    if ratio < RUNAWAY and not (is_last and accepted < best):
        return
    how = f"{'large' if rises else 'small'} as it can be" if is_last else f"{first:.3g} as the run began"
    what = f"{sampler.tunable} is {value:.3g}, {'as ' if is_last else ''}{how}: {accepted:.0%} of the proposals are"
    yield Symptom("bound", f"{what} accepted, where {best:.0%} serve a kernel best", ANOTHER_KERNEL)


def of_model(look: Look, module: EBMModule, max_gap: float) -> Iterator[Symptom]:
    """Whether chains and model have parted.

    Args:
        look: means over the last looks.
        module: the run's module.
        max_gap: gap in nats above which no chains that follow their model come.
    """
    if LAGGING < look.lag < math.inf and look.gap < 0 and look.apart > OUTRUN:  # infinite: chains that stand still
        outrun = (
            f"the model outruns its chains: they lag {look.lag:.0f} behind, more than {LAGGING:.0f}, and their "
            f"energies lie {-look.gap:.1f} nats below those of the data"
        )
        yield Symptom("outrun", outrun, "a lower model.learning_rate or more model.num_steps", slower=True)
    if look.gap > max_gap / 2:
        drift = f"the energy gap between data and chains is {look.gap:.1f} nats, on its way to {max_gap:.1f}"
        yield Symptom("gap", drift, "more model.num_steps or a lower model.learning_rate", slower=True)
    elif look.apart > APART:
        where, why = ("below", "modes without data") if look.gap < 0 else ("above", "chains do not get to the data")
        size = f"{abs(look.gap):.1f} nats, {look.apart:.1f} standard deviations,"
        apart = f"the energies of the chains lie {size} {where} those of the data: {why}"
        yield Symptom("apart", apart, "a lower model.learning_rate or more model.num_steps", slower=True)


class Evaluation(NamedTuple):
    """What an evaluation found on the validation points, and how much higher log p of training points is.

    Args:
        iteration: its iteration.
        validation: log-likelihood of validation, nats.
        stderr: its error through log Z.
        ahead: by how much that of training points is higher, nats.
        found: share of the points whose label the model finds; NaN where there are none.
        commonest: share of the commonest label.
        num: points with a label.
        gain: log-likelihood above that of the reference, in standard errors.
    """

    iteration: int
    validation: float
    stderr: float
    ahead: float
    found: float = math.nan
    commonest: float = math.nan
    num: int = 0
    gain: float = math.nan


def of_memory(evaluations: Sequence[Evaluation]) -> Iterator[Symptom]:
    """Whether the model learns its training points by heart.

    Args:
        evaluations: those of the run, the oldest first.
    """
    if not evaluations:
        return
    best, now = max(evaluations, key=lambda found: found.validation), evaluations[-1]
    since = sum(found.iteration > best.iteration for found in evaluations)
    fell = best.validation - now.validation
    rose = now.validation + now.ahead - best.validation - best.ahead
    if since >= FALLS and fell > ERRORS * math.hypot(best.stderr, now.stderr) and rose > 0:
        by_heart = (
            f"training points are learnt by heart: since iteration {best.iteration} the log-likelihood of validation "
            f"fell by {fell:.2f} nats, and that of training rose by {rose:.2f}"
        )
        yield Symptom("memorising", by_heart, "stop.plateau, a larger model.weight_decay or a smaller energy")


def of_labels(evaluations: Sequence[Evaluation]) -> Iterator[Symptom]:
    """Whether labels are found at chance alone, in two evaluations in a row, by a model that has learnt something.

    Where one label has more than half of the points, the best classifier may name it alone: nothing is said.

    Args:
        evaluations: those of the run, the oldest first.
    """
    last = evaluations[-FALLS:]
    if len(last) < FALLS or not all(at_chance(each) for each in last) or not last[-1].gain > ERRORS:
        return
    now = last[-1]
    if now.commonest > MOSTLY:
        return
    chance = (
        f"labels are found at chance: {now.found:.0%} of {now.num} validation points, the commonest label has "
        f"{now.commonest:.0%}, while the likelihood is better than the reference's: are labels and points shuffled?"
    )
    yield Symptom("labels", chance, "the order of the labels in data, or a longer trainer.max_steps,")


def at_chance(found: Evaluation) -> bool:
    """Whether no more labels are found than the commonest one has, within two standard errors."""
    error = math.sqrt(found.commonest * (1 - found.commonest) / max(found.num, 1))
    return found.found <= found.commonest + CHANCE * error


class Symptoms(Callback):
    """Says what is wrong with a run as soon as it shows, once for each symptom until it has gone for a while.

    Every tenth iteration it looks at acceptance, hops, gap, spread and lag, alike on all ranks, and judges their means
    over five looks; gap and lag after the first 200 iterations only. After an evaluation it judges whether validation
    falls while training rises: Z drops out of the difference of the two; and, where a site is a label, whether labels
    are found more often than by chance. The newest symptoms are ``module.symptoms``,
    and each is logged as symptom/NAME, 1 at its iteration. By choice the guard acts on those that it can mend.

    Args:
        guard: the run's guard, which says how large a gap may be and acts on symptoms.
    """

    def __init__(self, guard: DivergenceGuard) -> None:
        self.guard = guard
        self._num_returns = 0
        self._looks: list[list[float]] = []
        self._evaluations: list[Evaluation] = []
        self._seen: dict[str, int] = {}
        self._first: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The kernel is that of the settings still, before adaptation follows its decisions."""
        assert isinstance(pl_module, EBMModule)
        self._first = tunable_value(pl_module.sampler)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, EBMModule)
        if trainer.global_step % LAG_EVERY:
            return
        if len(self.guard.returns) > self._num_returns:
            self._num_returns, self._looks = len(self.guard.returns), []
            self._evaluations = [e for e in self._evaluations if e.iteration <= self.guard.returns[-1].to]
        self._look(pl_module)
        self._judge(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last iteration's evaluation comes after its look."""
        assert isinstance(pl_module, EBMModule)
        self._judge(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers: the last looks, the evaluations, and when each symptom was last seen."""
        return {
            "looks": [list(look) for look in self._looks],
            "evaluations": [list(found) for found in self._evaluations],
            "seen": dict(self._seen),
            "num_returns": self._num_returns,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._looks = [list(look) for look in state_dict["looks"]]
        self._evaluations = [Evaluation(*found) for found in state_dict["evaluations"]]
        self._seen = dict(state_dict["seen"])
        self._num_returns = state_dict["num_returns"]

    def _look(self, module: EBMModule) -> None:
        stats = module.stats
        if stats is None or stats.energy_gap is None or stats.lag is None:
            return
        values = (stats.accept_prob, stats.hops, stats.energy_gap, stats.energy_spread, stats.lag)
        known = [torch.as_tensor(math.nan if value is None else value, device=stats.lag.device) for value in values]
        means = all_sum(torch.stack([value.double() for value in known])) / world_size()
        self._looks = [*self._looks[1 - LOOKS :], means.tolist()]

    def _remember(self, module: EBMModule) -> None:
        """The newest evaluation, once."""
        if module.assessment is None:
            return
        iteration, assessment = module.assessment
        found = assessment.likelihoods.get("val")
        if found is None or assessment.collapsed or any(e.iteration >= iteration for e in self._evaluations):
            return
        with module.evaluated_weights(), in_eval_mode(module):
            evaluation = Evaluation(iteration, found.mean, found.stderr, training_ahead(module), *labels_found(module))
        gain = assessment.gains.get("val")
        if gain is not None and (error := math.hypot(gain.stderr, gain.data_stderr)):
            evaluation = evaluation._replace(gain=gain.mean / error)
        self._evaluations.append(evaluation)

    def _judge(self, trainer: Trainer, module: EBMModule) -> None:
        self._remember(module)
        self._tell(trainer, module, list(self._found(trainer, module)))

    def _found(self, trainer: Trainer, module: EBMModule) -> Iterator[Symptom]:
        if len(self._looks) == LOOKS:
            look = Look(*(sum(column) / LOOKS for column in zip(*self._looks, strict=True)))
            bound = list(of_setting(look, module.sampler, module.target, self._first))
            yield from bound or of_chains(look, module)
            if trainer.global_step >= SETTLING:
                yield from of_model(look, module, self.guard.limit(module))
        yield from of_memory(self._evaluations)
        yield from of_labels(self._evaluations)

    def _tell(self, trainer: Trainer, module: EBMModule, found: list[Symptom]) -> None:
        module.symptoms = found
        iteration = trainer.global_step
        new = [symptom for symptom in found if iteration - self._seen.get(symptom.name, -AGAIN) >= AGAIN]
        self._seen |= {symptom.name: iteration for symptom in found}
        for symptom in new:
            for logger in trainer.loggers:
                logger.log_metrics({f"symptom/{symptom.name}": 1.0}, iteration)
            if trainer.is_global_zero:
                say(f"iteration {iteration}: {symptom.sentence}", "yellow")


def training_ahead(module: EBMModule) -> float:
    """By how many nats log p(x) is higher for training points than for validation points, on average; Z drops out."""
    splits, training = module.data.splits, module.data.sample_codes(MOST_TRAINING)
    points = (codes.to(module.device) for codes in (training, splits.validation))
    found = [unnormalised_log_prob(module.target, codes) for codes in points]
    return float(found[0].mean() - weighted_mean(found[1], splits.validation_weights))


def labels_found(module: EBMModule) -> tuple[float, float, int]:
    """Shares of validation points whose label the model finds and that have the commonest one, and how many there are.

    (NaN, NaN, 0) where no site is a label. At most 1,000 points, an evaluation a category.
    """
    site, validation = module.data.label_site, module.data.splits.validation
    site = module.objective.label_site if site is None else site
    if site is None or not len(validation) or validation.is_floating_point():
        return math.nan, math.nan, 0
    site %= module.space.num_sites
    codes = validation[:MOST_TRAINING].long().to(module.device)
    right = label_probs(module.target, codes, site).argmax(1) == codes[:, site]
    return float(right.double().mean()), float(codes[:, site].bincount().max()) / len(codes), len(codes)

"""What a run chooses where its settings say "auto": from the space, the number of points, and the length of the run.

Every choice is a plain function of these, so all ranks make the same; it is written to config.yaml as a number, so a
run that goes on does not choose again. A setting that is given stays as it is. Not implemented: choices by the values
of the points.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from jsonargparse import Namespace

from gwg_dist.data import DiscreteData
from gwg_dist.energies import Energy
from gwg_dist.spaces import Binary, Space
from gwg_dist.tools.commands import Parser
from gwg_dist.tools.terminal import say

AUTO = "auto"
NUM_ITERATIONS = 6000
MAX_RBM_SITES, HIDDEN_PER_SITE = 80, 3
MAX_COUPLINGS = 2**24
MANY_CATEGORIES = 32  # from which on a network reads a site as a few numbers
MIN_STEPS, MAX_STEPS, SITES_PER_STEP = 10, 50, 10
MIN_REST, MAX_REST, VISITS = 5, 100, 300
MAX_WARMUP, COOLDOWN = 100, 0.3
MAX_LAG = 25.0  # chains that lag further behind the model no longer tell of it (docs/tuning.md)
NUM_EVALUATIONS, MIN_EVERY, NUM_AIS_CHAINS = 6, 100, 100
EVALUATED_SHARE, FINAL_SHARE = 0.05, 0.1  # of the moves of training, without the other side
MIN_TEMPERATURES, MAX_TEMPERATURES = 300, 30_000


class Choice(NamedTuple):
    """A setting that was left to the recipe.

    Args:
        key: dotted key.
        value: what it became.
        reason: why, in a few words.
        by_length: whether it hangs on the length of the run.
    """

    key: str
    value: Any
    reason: str
    by_length: bool = False


def settle(parser: Parser, config: Namespace, data: DiscreteData) -> list[Choice]:
    """Replace every "auto" of ``config`` by a choice for these data; the choices, in the order they were made."""
    made = []
    for choose in (length, energy, kernel_steps, optimizer, by_length):
        for choice in choose(config, data):
            if config.get(choice.key) == AUTO:
                config[choice.key] = _complete(parser, choice)
                made.append(choice)
    return made


def length(config: Namespace, data: DiscreteData) -> Iterator[Choice]:
    """Iterations of a run."""
    del config, data
    yield Choice("trainer.max_steps", NUM_ITERATIONS, "a first run; longer ones are better", by_length=True)


def energy(config: Namespace, data: DiscreteData) -> Iterator[Choice]:
    """A model of all pairs of sites where its couplings fit; hidden units where there are few sites."""
    del config
    space = data.space
    couplings = (space.num_sites * space.width) ** 2
    if isinstance(space, Binary) and space.num_sites <= MAX_RBM_SITES:
        value = {"class_path": "gwg_dist.energies.RBMEnergy"}
        value["init_args"] = {"num_hidden": HIDDEN_PER_SITE * space.num_sites}  # pyright: ignore[reportArgumentType]
        yield Choice("model.energy", value, f"{space.num_sites} binary sites, {HIDDEN_PER_SITE} hidden units for each")
    elif couplings <= MAX_COUPLINGS:
        name = "IsingEnergy" if isinstance(space, Binary) else "PottsEnergy"
        yield Choice("model.energy", {"class_path": f"gwg_dist.energies.{name}"}, f"all pairs: {couplings:,} couplings")
    else:
        value, reason = (
            {"class_path": "gwg_dist.energies.MLPEnergy"},
            f"too large for all pairs: {couplings:,} couplings",
        )
        if space.width >= MANY_CATEGORIES:
            size = math.ceil(math.log(space.width, 4))
            value["init_args"] = {"num_embedding": size}  # pyright: ignore[reportArgumentType]
            reason += f"; {size} numbers for the {space.width} categories of a site"
        yield Choice("model.energy", value, reason)


def kernel_steps(config: Namespace, data: DiscreteData) -> Iterator[Choice]:
    """Kernel transitions an iteration: enough for a tenth of the sites."""
    del config
    num_sites = data.space.num_sites
    value = min(max(round(num_sites / SITES_PER_STEP), MIN_STEPS), MAX_STEPS)
    yield Choice("model.num_steps", value, f"one for {SITES_PER_STEP} of {num_sites} sites, {MIN_STEPS} to {MAX_STEPS}")


def optimizer(config: Namespace, data: DiscreteData) -> Iterator[Choice]:
    """The rate and the decay that belong to the energy, and whether the rate may be lowered."""
    found, left_to_us = energy_class(config), config.model.learning_rate == AUTO
    reason = f"the rate for {found.__name__} of {data.space.num_sites} sites"
    yield Choice("model.learning_rate", found.rate_on(data.space), reason)
    if config.model.optimizer is None:
        yield Choice("model.weight_decay", found.weight_decay, f"the decay for {found.__name__}")
    else:
        yield Choice("model.weight_decay", 0.0, "the optimizer has its own")
    if left_to_us:
        yield Choice("pace.limit", MAX_LAG, "a run whose chains lag further behind is slowed down")
    else:
        yield Choice("pace.limit", 0.0, "a learning rate that is given stays")


def by_length(config: Namespace, data: DiscreteData) -> Iterator[Choice]:
    """What hangs on the length of a run; a longer one rests its chains longer and measures more finely."""
    num, batch = config.trainer.max_steps, data.batch_size
    rest = min(max(num // VISITS, MIN_REST), MAX_REST)
    yield Choice(
        "model.chains.init_args.size", rest * batch, f"each chain moves once in {rest} iterations", by_length=True
    )
    warmup = min(num // 20, MAX_WARMUP)
    yield Choice("model.warmup_iterations", warmup, f"a twentieth of the run, at most {MAX_WARMUP}", by_length=True)
    yield Choice("model.cooldown", COOLDOWN, "the rate falls over the last part of the run")
    yield from evaluation(config, data.space, num * config.model.num_steps * batch)


def evaluation(config: Namespace, space: Space, num_moves: int) -> Iterator[Choice]:
    """Estimates of the likelihood, by a share of as many moves as training has, ``num_moves``.

    Those on the way take a twentieth. The other side takes a quarter as many again, and up to two thirds of the time.
    """
    num = config.trainer.max_steps
    every = max(-(-num // NUM_EVALUATIONS), MIN_EVERY)
    yield Choice("evaluation.every", every, f"{NUM_EVALUATIONS} times in a run", by_length=True)
    yield Choice("evaluation.num_chains", NUM_AIS_CHAINS, "for an error bar")
    chains = NUM_AIS_CHAINS if config.evaluation.num_chains == AUTO else config.evaluation.num_chains
    least = max(MIN_TEMPERATURES, space.num_sites)
    for key, share, times in (
        ("num_temperatures", EVALUATED_SHARE / NUM_EVALUATIONS, 1),
        ("final_temperatures", FINAL_SHARE, 4),
    ):
        value = min(max(round(share * num_moves / chains), times * least), MAX_TEMPERATURES)
        yield Choice(f"evaluation.{key}", value, f"{share:.1%} of the moves of training", by_length=True)


def energy_class(config: Namespace) -> type[Energy]:
    """The class of a run's energy, which says its rate."""
    module, _, name = config.model.energy.class_path.rpartition(".")
    return getattr(sys.modules[module], name)  # the parser has imported it


def say_choices(choices: list[Choice]) -> None:
    """A line for each choice: the setting, what it became, and why."""
    if choices:
        say("settings that were left to the recipe (any of them can be given):")
    for choice in choices:
        say(f"  --{choice.key.replace('.init_args', '') + '=' + _text(choice.value):<44} {choice.reason}")


def _complete(parser: Parser, choice: Choice) -> Any:
    """The value as the parser holds it: a class with all of its settings."""
    if not isinstance(choice.value, dict):
        return choice.value
    group, _, name = choice.key.rpartition(".")
    return parser.parse_object({group: {name: choice.value}})[choice.key]


def _text(value: Any) -> str:
    """A value as somebody would type it; a class by its name."""
    if not isinstance(value, dict):
        return f"{value:g}" if isinstance(value, float) else str(value)
    more = ", ".join(f"{name} {number}" for name, number in value.get("init_args", {}).items())
    return value["class_path"].rpartition(".")[2] + (f" ({more})" if more else "")

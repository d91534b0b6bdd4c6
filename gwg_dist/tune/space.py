"""What a sweep varies: a domain for each dotted key, as it stands in the YAML file.

choice: [a, b]          one of these
uniform: [low, high]    log_uniform: [low, high]
int: [low, high]        log_int: [low, high], both ends included
points: n               of a range, for a grid

Not implemented: domains that depend on each other.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import product
from typing import Any

from gwg_dist.tools.commands import nearest
from gwg_dist.tools.errors import InputError

KINDS = ("choice", "uniform", "log_uniform", "int", "log_int")
DIGITS = 4  # significant, of what is drawn from a range
RESAMPLE_PROB = 0.25  # of a mutation that forgets the value
FACTORS = (0.8, 1.25)  # of the others

SearchSpace = dict[str, "Domain"]


@dataclass(frozen=True)
class Domain:
    """The values that one key may take.

    Args:
        kind: one of KINDS.
        values: the choices, or the two ends of a range.
        points: number of grid points over a range; 0 where none was given.
    """

    kind: str
    values: tuple[Any, ...]
    points: int = 0

    @property
    def is_int(self) -> bool:
        return self.kind in ("int", "log_int")

    @property
    def is_log(self) -> bool:
        return self.kind in ("log_uniform", "log_int")

    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for all to be: every choice, both ends of a range."""
        return self.values

    def sample(self, rng: random.Random) -> Any:
        """One value; a range is uniform in itself or in its logarithm."""
        if self.kind == "choice":
            return rng.choice(self.values)
        if self.is_int:
            return self.inside(math.floor(self._at(rng.random(), self.values[1] + 1)))
        return self.inside(self._at(rng.random(), self.values[1]))

    def grid(self) -> list[Any]:
        """All choices, or ``points`` values from end to end, evenly in the value or its logarithm."""
        if self.kind == "choice":
            return list(self.values)
        shares = [index / (self.points - 1) for index in range(self.points)] if self.points > 1 else [0.5]
        return list(dict.fromkeys(self.inside(self._at(share, self.values[1])) for share in shares))

    def mutate(self, value: Any, rng: random.Random) -> Any:
        """A new value near ``value``: a factor of 0.8 or 1.25, the next choice; now and then any value."""
        if rng.random() < RESAMPLE_PROB or (self.kind == "choice" and value not in self.values):
            return self.sample(rng)
        if self.kind == "choice":
            index = self.values.index(value) + rng.choice((-1, 1))
            return self.values[min(max(index, 0), len(self.values) - 1)]
        factor = rng.choice(FACTORS)
        if self.is_int:  # a small number would be rounded back to itself
            return self.inside(math.floor(value * factor) if factor < 1 else math.ceil(value * factor))
        return self.inside(value * factor)

    def inside(self, value: float) -> int | float:
        """``value`` with few digits, within the range."""
        low, high = self.values
        rounded = round(value) if self.is_int else float(f"{value:.{DIGITS}g}")
        return min(max(rounded, low), high)

    def _at(self, share: float, high: float) -> float:
        """The value a share of the way from the low end to ``high``, by value or by logarithm."""
        low = self.values[0]
        if self.is_log:
            return math.exp((1 - share) * math.log(low) + share * math.log(high))
        return (1 - share) * low + share * high


def parse_space(raw: dict[str, Any]) -> SearchSpace:
    """The domains, parents before their parts, so that a class comes before its settings.

    Raises InputError with the key for anything that is no domain.
    """
    if not raw:
        raise InputError("space: name at least one setting to vary, such as model.learning_rate")
    return {key: parse_domain(key, raw[key]) for key in sorted_keys(raw)}


def sorted_keys(keys: Any) -> list[str]:
    """Classes before their settings, otherwise by name."""
    return sorted(keys, key=lambda key: (key.count("."), key))


def parse_domain(key: str, raw: Any) -> Domain:
    """One domain. Raises InputError."""
    if not isinstance(raw, dict):
        raise InputError(f"space: {key}: give one of {', '.join(KINDS)}, such as {{choice: [a, b]}}, got {raw!r}")
    for word in raw:
        if word not in (*KINDS, "points"):
            near = nearest(str(word), [*KINDS, "points"])
            hint = f" (did you mean {near}?)" if near else ""
            raise InputError(f"space: {key}: {word!r} is none of {', '.join(KINDS)}{hint}")
    kinds = [kind for kind in KINDS if kind in raw]
    if len(kinds) != 1:
        raise InputError(f"space: {key}: give exactly one of {', '.join(KINDS)}, got {', '.join(kinds) or 'none'}")
    kind, values, points = kinds[0], raw[kinds[0]], raw.get("points", 0)
    if not isinstance(values, (list, tuple)) or not values:
        raise InputError(f"space: {key}: {kind} needs a list, got {values!r}")
    if not isinstance(points, int) or isinstance(points, bool) or ("points" in raw and points < 1):
        raise InputError(f"space: {key}: points must be a positive integer, got {points!r}")
    if kind == "choice":
        if "points" in raw:
            raise InputError(f"space: {key}: a choice has no points, a grid takes all of it")
        return Domain(kind, tuple(values))
    check_range(key, kind, values)
    whole = kind in ("int", "log_int")
    return Domain(kind, tuple(value if whole else float(value) for value in values), points)


def check_range(key: str, kind: str, values: Any) -> None:
    """Raises InputError unless ``values`` are the two ends of a range."""
    wanted = int if kind in ("int", "log_int") else (int, float)
    what = "integers" if wanted is int else "numbers"
    if len(values) != 2 or not all(isinstance(v, wanted) and not isinstance(v, bool) for v in values):
        raise InputError(f"space: {key}: {kind} needs two {what}, [low, high], got {list(values)}")
    low, high = values
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"space: {key}: {kind} needs finite ends, got {list(values)}")
    if not low < high:
        raise InputError(f"space: {key}: low must be below high, got {low} and {high}")
    if kind.startswith("log") and low <= 0:
        raise InputError(f"space: {key}: {kind} needs low above 0, got {low}")


def random_points(space: SearchSpace, num: int, seed: int) -> list[dict[str, Any]]:
    """``num`` independent points; more of them begin with the same ones."""
    rng = random.Random(f"gwg_dist.tune {seed}")
    return [{key: domain.sample(rng) for key, domain in space.items()} for _ in range(num)]


def grid_points(space: SearchSpace) -> list[dict[str, Any]]:
    """Every combination. Raises InputError for a range without points."""
    for key, domain in space.items():
        if domain.kind != "choice" and not domain.points:
            raise InputError(f"space: {key}: a grid needs points: n beside {domain.kind}")
    return [dict(zip(space, values, strict=True)) for values in product(*(domain.grid() for domain in space.values()))]


def end_points(space: SearchSpace, limit: int) -> list[dict[str, Any]]:
    """Every combination of ends where they are at most ``limit``; else each key's ends, all others low or all high."""
    ends = {key: domain.ends() for key, domain in space.items()}
    if math.prod(len(values) for values in ends.values()) <= limit:
        return [dict(zip(ends, values, strict=True)) for values in product(*ends.values())]
    bases = [{key: values[side] for key, values in ends.items()} for side in (0, -1)]
    found = [*bases, *(base | {key: value} for base in bases for key, values in ends.items() for value in values)]
    return [point for index, point in enumerate(found) if point not in found[:index]]

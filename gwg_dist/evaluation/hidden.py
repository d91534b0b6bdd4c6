"""log Z of a restricted Boltzmann machine by the sum over its hidden units, where there are few of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.spaces import Binary
from gwg_dist.structure import HiddenUnits
from gwg_dist.target import StructuredTarget, Target

MAX_HIDDEN_UNITS = 24
AT_ONCE = 2**22  # numbers of the logits that are held together
TIMED = 3  # parts of the sum that tell how long all take


def num_hidden_units(target: Target) -> int | None:
    """H of an energy that is a sum over H hidden units; None for others."""
    frozen = target.frozen()
    found = frozen.structure if isinstance(frozen, StructuredTarget) else None
    return len(found.weight) if isinstance(found, HiddenUnits) else None


def hidden_log_z(target: Target) -> float:
    """log Z in nats, exact: Z = sum_h exp(c^T h) prod_i sum_k ref_i(k) exp(b_ik + (W^T h)_ik) over h in {0, 1}^H.

    2^H terms of D numbers, in float64, in parts of bounded memory: 2^20 terms of 784 sites are a matter of seconds.
    The units are taken in two halves, so that W^T h is one sum of two rows.

    Args:
        target: target whose energy has hidden units; a missing reference is the uniform one.

    Raises:
        ValueError: another energy, or more than 24 hidden units.
    """
    constant = -target.space.log_num_states if target.reference is None else float(target.reference.constant)
    return float(torch.logsumexp(torch.stack(list(_parts(target))), 0)) + constant


def hidden_seconds(target: Target) -> float:
    """About how long ``hidden_log_z`` takes on this machine, by the fastest of three of its parts; the same errors."""
    times = [math.inf]
    parts, began = _parts(target), time.perf_counter()
    for _ in islice(parts, TIMED):
        times.append(time.perf_counter() - began)
        began = time.perf_counter()
    return _num_parts(target) * min(times)


def _num_parts(target: Target) -> int:
    num_hidden = num_hidden_units(target) or 0
    in_a_row = -(-(2 ** (num_hidden - num_hidden // 2)) // _step(target))
    return 2 ** (num_hidden // 2) * in_a_row


def _parts(target: Target) -> Iterator[Tensor]:
    """The log of each part of the sum, 0-d, without what the reference has in common for all points."""
    frozen = target.frozen()
    units = frozen.structure if isinstance(frozen, StructuredTarget) else None
    if not isinstance(units, HiddenUnits):
        raise ValueError(f"a sum over hidden units needs an energy that has some, got {type(target.energy).__name__}")
    num_hidden = len(units.weight)
    if num_hidden > MAX_HIDDEN_UNITS:
        raise ValueError(f"at most {MAX_HIDDEN_UNITS} hidden units can be summed over, got {num_hidden}")
    first, second = units.weight.double().tensor_split([num_hidden // 2])
    first_bias, second_bias = units.hidden_bias.double().tensor_split([num_hidden // 2])
    start = units.visible_bias.double()
    if target.reference is not None:
        start = start + target.reference.weights.flatten()
    rows = start + _subsets(len(first), start) @ first  # (2^(H/2), N)
    other = _subsets(len(second), start) @ second
    bias, other_bias = _subsets(len(first), start) @ first_bias, _subsets(len(second), start) @ second_bias
    for logits, here in zip(rows, bias, strict=True):
        for more, there in zip(other.split(_step(target)), other_bias.split(_step(target)), strict=True):
            yield torch.logsumexp(here + there + _sites(target, logits + more), 0)


def _sites(target: Target, logits: Tensor) -> Tensor:
    """log prod_i sum_k exp(logit_ik), ``(B,)``, from logits ``(B, N)``; category 0 of a binary site has none."""
    space = target.space
    if isinstance(space, Binary):
        return functional.softplus(logits).sum(1)
    return space.without_padding(logits.unflatten(1, (space.num_sites, space.width))).logsumexp(2).sum(1)


def _subsets(num: int, like: Tensor) -> Tensor:
    """{0, 1}^num, ``(2^num, num)``."""
    bits = torch.arange(2**num, device=like.device)[:, None] >> torch.arange(num, device=like.device)
    return (bits & 1).to(like)


def _step(target: Target) -> int:
    """Terms that are summed together."""
    return max(AT_ONCE // (target.space.num_sites * target.space.width), 1)

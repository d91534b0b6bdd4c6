"""log Z of a restricted Boltzmann machine by the sum over its hidden units, where there are few of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gwg_dist.spaces import Binary
from gwg_dist.structure import HiddenUnits
from gwg_dist.target import StructuredTarget, Target

MAX_HIDDEN_UNITS = 24
AT_ONCE = 2**22  # numbers of the logits that are held together


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
    frozen = target.frozen()
    units = frozen.structure if isinstance(frozen, StructuredTarget) else None
    if not isinstance(units, HiddenUnits):
        raise ValueError(f"a sum over hidden units needs an energy that has some, got {type(target.energy).__name__}")
    num_hidden = len(units.weight)
    if num_hidden > MAX_HIDDEN_UNITS:
        raise ValueError(f"at most {MAX_HIDDEN_UNITS} hidden units can be summed over, got {num_hidden}")
    first, second = units.weight.double().tensor_split([num_hidden // 2])
    first_bias, second_bias = units.hidden_bias.double().tensor_split([num_hidden // 2])
    start, constant = units.visible_bias.double(), -target.space.log_num_states
    if target.reference is not None:
        start, constant = start + target.reference.weights.flatten(), float(target.reference.constant)
    rows = start + _subsets(len(first), start) @ first  # (2^(H/2), N)
    other = _subsets(len(second), start) @ second
    bias, other_bias = _subsets(len(first), start) @ first_bias, _subsets(len(second), start) @ second_bias
    parts = []
    for logits, here in zip(rows, bias, strict=True):
        for more, there in zip(other.split(_step(start)), other_bias.split(_step(start)), strict=True):
            parts.append(torch.logsumexp(here + there + _sites(target, logits + more), 0))
    return float(torch.logsumexp(torch.stack(parts), 0)) + constant


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


def _step(start: Tensor) -> int:
    return max(AT_ONCE // len(start), 1)

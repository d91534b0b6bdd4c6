"""Points that the reverse side of an estimate begins at, and training points whose mass counts."""

from __future__ import annotations

import torch
from torch import Tensor

from gwg_dist.callbacks import LEAST_CHAINS, some_chains
from gwg_dist.data import DiscreteData
from gwg_dist.evaluation.assess import Weighted
from gwg_dist.training.family import MAX_TRAIN, some
from gwg_dist.training.loading import LoadedRun


def training_part(data: DiscreteData) -> dict[str, Weighted]:
    """At most 10,000 training points and their weights, by name; none of images in shades of grey."""
    train, weights = data.splits.parts["train"]
    if train.is_floating_point():
        return {}
    rows = some(torch.arange(len(train)), MAX_TRAIN)
    return {"train": (train[rows], None if weights is None else weights[rows])}


def chains_of(run: LoadedRun, num: int, iteration: int) -> Tensor:
    """At most ``num`` persistent chains of a run, codes ``(n, D)``; without them, points of the training data."""
    packed = some_chains(run.module, run.checkpoint["chains"]["packed"], num, iteration=iteration)
    return run.data.sample_codes(num)[:num].cpu() if packed is None else run.module.space.unpack(packed).cpu()


def origin_of(run: LoadedRun) -> str:
    """What ``chains_of`` takes, in words."""
    packed = run.checkpoint["chains"]["packed"]
    few = packed is None or len(run.module.chains.of_model(packed)) < LEAST_CHAINS
    return "training points" if few else "chains"

"""Whether the chains of training look like new ones: a model may fit its data by chains that it cannot make anew."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from gwg_dist.callbacks import some_chains
from gwg_dist.evaluation import Assessment, pair_statistics, pearson_of_pairs
from gwg_dist.evaluation.statistics import agreement
from gwg_dist.tools.distributed import gather_rows
from gwg_dist.training.family import MAX_NUMBERS
from gwg_dist.training.loading import LoadedRun
from gwg_dist.training.starts import training_part

LEAST = 20  # points of each side that are compared
APART = 0.1  # of Pearson's correlation, by which new chains are worse


class Resample(NamedTuple):
    """Statistics of the training points beside chains of the run and new ones.

    Args:
        num: chains of the run that were looked at.
        sites: Pearson's correlation of the frequencies of all categories at all sites, for chains and for new ones.
        pairs: of the connected correlations of all pairs of sites, likewise.
    """

    num: int
    sites: tuple[float, float]
    pairs: tuple[float, float]

    @property
    def is_apart(self) -> bool:
        """Whether new chains have the correlations of the training points less than those of the run have."""
        return self.pairs[0] - self.pairs[1] > APART

    def sentence(self) -> str:
        """One line for people."""
        what = "correlations of the training points: Pearson {:.2f} in the run's chains, {:.2f} in new ones"
        out = ": the model was trained out of equilibrium, and its samples need the chains of its training"
        return what.format(*self.pairs) + (out if self.is_apart else "")

    def json(self) -> dict[str, Any]:
        """As plain numbers."""
        names = ("chains", "new")
        values = {name: dict(zip(names, getattr(self, name), strict=True)) for name in ("sites", "pairs")}
        return {"num": self.num, **values, "out of equilibrium": self.is_apart}


def resample_of(loaded: LoadedRun, assessment: Assessment) -> Resample | None:
    """Compare persistent chains with the annealed ones, which began at the reference; called on every rank.

    Annealed chains count by their weights, so that they are a sample of the model. The run's side has as many points as
    these are worth, and so as much noise, or all its chains where it has fewer. None where there are few of them, where
    chains were resampled among themselves, where points are shades of grey, or have too many numbers.

    Args:
        loaded: the run.
        assessment: of its model.
    """
    space, estimate = loaded.module.space, assessment.estimate
    ends, part = gather_rows(estimate.codes).cpu(), training_part(loaded.data)
    weights = torch.softmax(estimate.log_weights, 0).cpu()
    num = int(1 / float(weights.square().sum()))
    packed = loaded.checkpoint["chains"]["packed"]
    chains = some_chains(loaded.module, packed, num, iteration=loaded.checkpoint["global_step"])
    small = space.num_sites > 1 and space.num_sites * space.width <= MAX_NUMBERS
    if chains is None or num < LEAST or estimate.num_systems or not small or not part:
        return None
    data, ours, new = (
        pair_statistics(codes.cpu(), space.num_categories, each)
        for codes, each in (part["train"], (space.unpack(chains), None), (ends, weights))
    )
    return Resample(
        len(chains),
        (agreement(data.single, ours.single).pearson, agreement(data.single, new.single).pearson),
        (pearson_of_pairs(data, ours).pearson, pearson_of_pairs(data, new).pearson),
    )

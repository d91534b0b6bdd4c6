"""A loss to copy. ``python templates/loss.py`` compares its gradient with the exact one.

This one is contrastive divergence without penalties. Replace ``__call__`` by yours.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gwg_dist.batch import Batch
from gwg_dist.objectives import Objective, ObjectiveResult
from gwg_dist.target import Target


class MyLoss(Objective):
    """L = mean_w E(x+) - mean E(x-), x+ of the data with weights w, x- of the model's chains; in nats."""

    needs_chains: ClassVar[bool] = True  # False: the run has no chains, and x_model is None

    def __call__(
        self, target: Target, batch: Batch, x_model: Tensor | None, *, generator: torch.Generator
    ) -> ObjectiveResult:
        """Raises ValueError where there are no chains."""
        if x_model is None:
            raise ValueError("MyLoss needs points of the model's chains, got x_model=None")
        energy_data, energy_model = target.energy(target.encode(batch.codes)), target.energy(x_model)
        loss = (batch.weights.to(energy_data) * energy_data).mean() - energy_model.mean()
        return ObjectiveResult(loss, energy_data.detach(), energy_model.detach())


if __name__ == "__main__":
    from gwg_dist.energies import RBMEnergy
    from gwg_dist.spaces import Binary
    from gwg_dist.testing import check_gradient

    check_gradient(MyLoss(), RBMEnergy(Binary(6), num_hidden=4))
    print("MyLoss has the gradient of the negative log-likelihood")

"""An energy to copy. ``python templates/energy.py`` checks it.

This one is the squared length of a linear map. Replace ``forward`` and its parameters by yours.
"""

from __future__ import annotations

from torch import Tensor, nn

from gwg_dist.energies import Energy
from gwg_dist.spaces import Space


class MyEnergy(Energy):
    """E(x) = |W x + b|^2.

    Args:
        space: any.
        width: rows of W.

    Raises:
        ValueError: a width below 1.
    """

    def __init__(self, space: Space, *, width: int = 16) -> None:
        super().__init__(space)
        if width < 1:
            raise ValueError(f"width must be positive, got {width}")
        self.linear = nn.Linear(space.num_sites * space.width, width)

    def forward(self, x: Tensor) -> Tensor:
        """E(x) in nats, ``(B,)``, from floats ``(B, D)`` (binary) or one-hot ``(B, D, K)`` (categorical)."""
        return self.linear(x.flatten(1)).square().sum(1)


if __name__ == "__main__":
    from gwg_dist.spaces import Binary, Categorical
    from gwg_dist.testing import check_energy

    for space in (Binary(9), Categorical(5, num_categories=3)):  # those that it is for
        check_energy(MyEnergy(space))
        print(f"MyEnergy is an energy on {space}")

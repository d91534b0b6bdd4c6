"""A folder of images."""

from __future__ import annotations

from typing import ClassVar

from gwg_dist.data.base import FOLDER, DiscreteData, Splits
from gwg_dist.data.coding import Coding, code
from gwg_dist.data.files import check_held_out
from gwg_dist.data.image_files import read_images


class Images(DiscreteData):
    """A folder of images of one size, read as grey, in the order of their names; black is 0 and white is 1.

    Images in folders below are taken along; what those are called is no label of anything.

    Args:
        path: the folder.
        batch_size: points in an iteration, on all ranks together.
        binarization: "threshold" (1 where a pixel is at least half bright), "static" (1 with the probability of its
            brightness, drawn once), "dynamic" (drawn anew in every batch).
        levels: divide the brightness into so many categories in place of binary pixels.
        held_out: fraction for each of the two splits that are cut.

    Raises:
        InputError: a folder without images, or an image that cannot be used, which is named.
    """

    sources: ClassVar[tuple[str, ...]] = (FOLDER,)
    paths: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(
        self,
        path: str,
        *,
        batch_size: int = 100,
        binarization: str = "threshold",
        levels: int | None = None,
        held_out: float = 0.1,
    ) -> None:
        how = Coding(binarization="none" if levels else binarization, levels=levels)
        self.held_out = check_held_out(held_out)
        self.binarization = how.binarization
        images, notes = read_images(path, "data.path")
        self._coded = code({"train": images}, how, path=path)
        super().__init__(self._coded.space, batch_size=batch_size)
        self.notes, self.grey = [*notes, *self._coded.notes], self._coded.grey

    def load(self) -> Splits:
        return self._coded.cut(held_out=self.held_out, binarization=self.binarization)

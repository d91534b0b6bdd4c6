"""The file in which an estimate waits that was stopped."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch

from gwg_dist.evaluation import Unfinished
from gwg_dist.tools.distributed import from_rank_0, rank
from gwg_dist.tools.files import surviving, write_tensors

logger = logging.getLogger("gwg_dist")


class Waiting:
    """The file in which an estimate that was stopped waits for the next identical command.

    What it holds fits no other weights, seed, settings or number of ranks: then the estimate begins again.

    Args:
        path: file in which the estimate waits.
        checkpoint: the estimate is of its weights.
    """

    def __init__(self, path: Path, checkpoint: dict[str, Any]) -> None:
        self.path = path
        digest = hashlib.sha256(str(checkpoint["gwg_dist"]["seed"]).encode())
        for name, tensor in sorted(checkpoint["state_dict"].items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        self.model = digest.hexdigest()

    def read(self) -> Unfinished | None:
        """The estimate that waits for these weights; called on every rank."""
        held = self.held()
        return None if held is None or held.keys() - set(Unfinished._fields) else Unfinished(**held)

    def held(self) -> dict[str, Any] | None:
        """What waits for these weights, as ``hold`` took it; called on every rank."""
        found = None
        if rank() == 0 and self.path.is_file():
            try:
                held = torch.load(self.path, map_location="cpu", weights_only=True)
                if held.pop("model") == self.model:
                    found = held
            except Exception as error:  # torch.load raises whatever the damaged bytes lead to
                logger.warning("%s cannot be read, the estimate begins again: %s", self.path, type(error).__name__)
        return from_rank_0(found)

    def write(self, unfinished: Unfinished) -> None:
        """Set the estimate aside, by rank 0; a disk that is full costs a line, and the estimate."""
        self.hold(unfinished._asdict())

    def hold(self, values: dict[str, Any]) -> None:
        """Set numbers and tensors aside, by rank 0; a disk that is full costs a line, and them."""
        if rank() == 0:
            with surviving("the estimate that was stopped"):
                write_tensors(self.path, {"model": self.model, **values})

    def delete(self) -> None:
        """The estimate is done; by rank 0."""
        if rank() == 0:
            with surviving("the estimate that was stopped"):
                self.path.unlink(missing_ok=True)

"""Which implementation moves the chains: a checkpoint names it, and a run that goes on with another says so.

All implementations sample the same distribution, but they use the random numbers in another way.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from gwg_dist.module import EBMModule
from gwg_dist.samplers import plan_chains
from gwg_dist.tools.distributed import rank, world_size

logger = logging.getLogger("gwg_dist")


class KernelChange(Callback):
    """Says once where another kernel moves the chains than the one of the checkpoint, for the same sampler."""

    def __init__(self) -> None:
        self.before: dict[str, str] | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.before = checkpoint["gwg_dist"].get("kernel")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        before, self.before = self.before, None
        if before is None:
            return
        assert isinstance(pl_module, EBMModule)
        now = kernel_of(pl_module)
        if rank() == 0 and now["sampler"] == before["sampler"] and now["kernel"] != before["kernel"]:
            logger.warning(
                "chains go on by %s, before by %s: from here on other random numbers than before",
                now["kernel"], before["kernel"],
            )  # fmt: skip


def kernel_of(module: EBMModule) -> dict[str, str]:
    """The sampler of a run and the kernel that runs it on this machine, as a checkpoint names them."""
    if not module.objective.needs_chains:
        return {"sampler": "none", "kernel": "none"}
    codes = torch.zeros(-(-module.data.batch_size // world_size()), module.space.num_sites, dtype=torch.int64)
    x = module.space.encode(codes.to(module.device))
    with torch.no_grad():
        plan = plan_chains(module.sampler, module.target, x, beta=x.new_ones(()), backend=module.backend)
    return {"sampler": repr(module.sampler), "kernel": type(plan.kernel).__name__}

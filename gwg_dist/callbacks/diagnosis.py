"""Why a run may have diverged: from what was measured to the setting that it points at."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import torch

from gwg_dist.module import EBMModule

LAGGING = 25.0  # a lag above which runs of pairs and of RBMs fail more often than not, see docs/tuning.md
REFUSED = 0.05
ANOTHER_KERNEL = "another model.sampler"
GENERAL = "more model.num_steps, a lower model.learning_rate, SiLU in place of ReLU, or model.chains.restart_prob=0.01"


def what_helps(module: EBMModule) -> str:
    """Half a sentence: what was measured in the last iteration, and the settings to change."""
    stats = module.stats
    if stats is None or stats.accept_prob is None or stats.hops is None:
        return "a lower model.learning_rate usually helps"
    accepted = float(stats.accept_prob)
    if accepted < REFUSED:
        helps = f"{kernel_setting(module)} or a lower model.learning_rate helps"
        return f"{accepted:.1%} of the proposals are accepted: {helps}"
    if not float(stats.hops):
        return f"chains stand still: {kernel_setting(module)} helps"
    if stats.lag is None or not float(stats.lag) > LAGGING:
        return f"{GENERAL} usually help"
    interval = module.chains.interval(module.data.batch_size)
    visits = module.space.num_sites / max(module.num_steps * float(stats.hops), 1e-9)
    lag = f"chains lag {float(stats.lag):.0f} behind the model"
    if interval >= max(visits, 2):
        return f"{lag}, each moves once in {interval:.0f} iterations: a smaller model.chains.size helps"
    if visits >= 2:
        return f"{lag}, each needs {visits:.0f} visits to renew itself: more model.num_steps help"
    return f"{lag}: a lower model.learning_rate helps"


def kernel_setting(module: EBMModule) -> str:
    """What of the kernel to change where it is refused or stands still."""
    settings = {field.name for field in dataclasses.fields(cast(Any, module.sampler))}
    names = (name for name in (module.sampler.tunable, "temperature") if name in settings)
    name = next(names, None)
    return ANOTHER_KERNEL if name is None else f"{ANOTHER_KERNEL}.{name}"


def where_not_finite(module: EBMModule) -> str:
    """The first parameter whose gradient is not finite."""
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return name
    return "none alone"

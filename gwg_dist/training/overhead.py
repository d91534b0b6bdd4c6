"""What can be left out of what Lightning does around an iteration, which takes as long as that of a small model.

Of a callback's hooks Lightning calls those that can be called, so that a hook that does nothing is best not there.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler

HOOKS = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end",
)  # fmt: skip
"""Of a callback, in every iteration."""

NOTHING = nullcontext("")


class NoProfiler(PassThroughProfiler):
    """Measures nothing, without a generator for every hook of every callback."""

    def profile(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, action_name: str
    ) -> AbstractContextManager[str]:
        """The same empty context for all."""
        del action_name
        return NOTHING


def without_empty_hooks(callbacks: Iterable[Callback]) -> None:
    """Take the hooks of an iteration that are those of ``Callback`` itself, which do nothing, out of each callback."""
    for callback in callbacks:
        for hook in HOOKS:
            if getattr(getattr(callback, hook), "__func__", None) is getattr(Callback, hook):
                setattr(callback, hook, None)

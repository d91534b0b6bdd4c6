"""What is left out around an iteration is what does nothing."""

from typing import Any

from lightning.pytorch.callbacks import Callback, LambdaCallback

from gwg_dist.training.overhead import HOOKS, without_empty_hooks


class Watch(Callback):
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Here something may happen."""


class Closer(Watch):
    """Inherits it."""


def test_only_hooks_that_do_nothing_are_left_out() -> None:
    given = LambdaCallback(on_after_backward=print)
    callbacks = [Watch(), Closer(), given]
    without_empty_hooks(callbacks)
    there = [{hook for hook in HOOKS if callable(getattr(callback, hook))} for callback in callbacks]
    assert there == [{"on_train_batch_end"}, {"on_train_batch_end"}, {"on_after_backward"}]

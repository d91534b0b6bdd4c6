"""Lightning's loggers, which a full disk ends with a traceback; here it costs a line, and the run goes on."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from gwg_dist.tools.files import replacing, surviving


class MetricsFile(CSVLogger):
    """Metrics as CSV, written whole or not at all; rows that could not be written are written with the next ones."""

    @rank_zero_only
    def save(self) -> None:
        writer = self.experiment
        if not writer.metrics:
            return
        path, keys = Path(writer.metrics_file_path), list(writer.metrics_keys)
        with surviving("metrics"):
            try:
                with replacing(path) as beside:
                    if path.is_file():
                        shutil.copyfile(path, beside)
                    writer.metrics_file_path = str(beside)
                    super().save()
            except OSError:
                writer.metrics_keys = keys
                raise
            finally:
                writer.metrics_file_path = str(path)


class TensorBoardFile(TensorBoardLogger):
    """Metrics for TensorBoard; its writer, a thread of its own, ends at the first write that fails."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        threading.excepthook = partial(_unless_told, threading.excepthook)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        with surviving("tensorboard"):
            super().log_metrics(dict(metrics), step)

    def save(self) -> None:
        with surviving("tensorboard"):
            super().save()

    def finalize(self, status: str) -> None:
        with surviving("tensorboard"):
            super().finalize(status)


def in_folder(config: Namespace, folder: Path) -> None:
    """Let the loggers that the settings pick write in the run's folder, unless they name an absolute one."""
    given = config.trainer.get("logger")
    for logger in given if isinstance(given, list) else [given]:
        settings = logger.get("init_args") if isinstance(logger, Namespace) else None
        if settings is not None and "save_dir" in settings:
            settings["save_dir"] = str(folder.resolve() / (settings["save_dir"] or "."))


def _unless_told(otherwise: Callable[[threading.ExceptHookArgs], object], args: threading.ExceptHookArgs) -> None:
    """Print no traceback of TensorBoard's writer: ``surviving`` tells of the same error, which the logger raises."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
        otherwise(args)

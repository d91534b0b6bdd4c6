"""Settings of the run itself that are outside their ranges, found before anything is made.

Settings of classes are checked by the classes. Those of Lightning's trainer that it takes without a word are here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace

from gwg_dist.tools.errors import InputError

HALF_PRECISIONS = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda seed: 0 <= seed < 2**32, "lie in 0 to 2^32 - 1"),
    "num_threads": (lambda num: num >= 1, "be positive"),
    "checkpoint_every": (lambda every: every >= 1, "be positive"),
    "pictures_every": (lambda every: every >= 0, "not be negative"),
    "stop_seconds": (lambda seconds: seconds > 0, "be positive"),
    "join_seconds": (lambda seconds: seconds > 0, "be positive"),
    "model.learning_rate": (lambda rate: rate < math.inf, "be finite"),
    "max_minutes": (lambda minutes: minutes is None or 0 < minutes < math.inf, "be positive"),
    "evaluation.num_chains": (lambda num: num >= 2, "be at least 2 for a standard error"),
    "trainer.max_steps": (lambda steps: steps >= 1, "be positive"),
    "trainer.num_nodes": (lambda num: num >= 1, "be positive"),
    "trainer.log_every_n_steps": (lambda every: every is None or every >= 0, "not be negative"),
    "trainer.gradient_clip_val": (lambda value: value is None or value >= 0, "not be negative"),
}
PATHS = ("run_dir", "ckpt_path", "weights_from")


def check(config: Namespace) -> None:
    """Raise InputError for a setting of the run itself that is outside its range."""
    for key, (good, what) in RANGES.items():
        if key not in config:
            raise InputError(f"{key} is missing: the settings hold nothing for {key.partition('.')[0]}")
        value = config[key]
        if not isinstance(value, str) and not good(value):  # a string stands for a value that is chosen later
            raise InputError(f"{key} must {what}, got {value}")
    if str(config.trainer.precision) in HALF_PRECISIONS:
        raise InputError(
            f"trainer.precision {config.trainer.precision} would round the energies that acceptance compares"
        )
    for key in PATHS:
        if config[key] is not None:
            check_path(config[key], key)


def check_path(path: str, key: str) -> None:
    """Raise InputError where ``path`` is empty, or nothing that this system takes for a path."""
    if not path.strip():
        raise InputError(f"{key} must be a path, got an empty one")
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # whether it is there, and may be used, is another question
    except (OSError, ValueError) as error:
        shown = path if len(path) <= 60 else f"{path[:30]}...{path[-20:]} ({len(path)} characters)"
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{key} must be a path, got {shown!r}: {reason}") from error

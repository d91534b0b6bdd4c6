"""The terminal: one console for the whole package, progress bars, log messages of the package as lines.

On a terminal a bar is live. Elsewhere (a log file, a batch job) nothing is drawn. Importing this file needs rich alone.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gwg_dist.tools.errors import InputError

REFRESH_SECONDS = 0.25
LIBRARY_NOISE = (
    ".*does not have many workers.*",
    ".*LeafSpec.*",
    ".*srun.*available.*",
    ".*litlogger.*",
    ".*Checkpoint directory.*exists.*",
    ".*Experiment logs directory.*exists.*",
    ".*`log_every_n_steps`.*",
    ".*batch_size.*ambiguous.*",
    ".*infer the batch_size.*",
    ".*`broadcast_buffers` is deprecated.*",
    ".*find unused parameters.*",
    ".*in the `DataLoader` init.*",
)

console = Console(stderr=True, highlight=False)


def say(text: str, style: str | None = None) -> None:
    """Print ``text`` as it is, on one line whatever the width of the terminal."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def say_error(message: str) -> None:
    """Print one line that begins with "error:", also where nothing else is printed."""
    was_quiet, console.quiet = console.quiet, False
    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    console.quiet = was_quiet


@contextmanager
def output(*, nothing: bool, log_file: str | None) -> Iterator[None]:
    """Within it what the package says is printed nowhere but for errors, or goes to the end of a file.

    Args:
        nothing: whether errors alone are printed.
        log_file: path of the file; None for the terminal.

    Raises:
        InputError: the file cannot be written.
    """
    was_quiet = console.quiet
    with ExitStack() as stack:
        try:
            if log_file is not None:
                console.file = stack.enter_context(open(log_file, "a", buffering=1))
        except OSError as error:
            raise InputError(f"log_file: {log_file} cannot be written: {error.strerror}") from error
        try:
            console.quiet = nothing
            yield
        finally:
            console.quiet = was_quiet
            if log_file is not None:
                console.file = None  # pyright: ignore[reportAttributeAccessIssue]  # the terminal again


def make_progress() -> Progress:
    """A progress bar in the style of the package; it shows nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        refresh_per_second=4,
    )


@contextmanager
def track(progress: Progress | None, description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for ``total`` rounds; call what it yields with the number of the round, as often as you like."""
    if progress is None:
        yield lambda _: None
        return
    task = progress.add_task(description, total=total, text="")
    shown = time.monotonic()

    def advance(done: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > REFRESH_SECONDS:
            shown = time.monotonic()
            progress.update(task, completed=done)

    try:
        yield advance
    finally:
        progress.remove_task(task)


def quiet() -> None:
    """Drop what the libraries say about themselves; the package's own log messages become lines of the console."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    ours = logging.getLogger("gwg_dist")
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        ours.addHandler(_ConsoleHandler())
    for message in LIBRARY_NOISE:
        warnings.filterwarnings("ignore", message=message)


class _ConsoleHandler(logging.Handler):
    """Messages as lines that no terminal width breaks; errors in red."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), "bold red" if record.levelno >= logging.ERROR else None)

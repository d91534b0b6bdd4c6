"""Output that nobody reads any more, and signals that come before there is a handler. Nothing is imported here."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, TextIO

GONE = (errno.EPIPE, errno.EIO)  # a pipe without a reader, a terminal that was closed


class Stream:
    """A stream that writes nothing more, in place of raising, once its reader is gone.

    Args:
        stream: the stream that is written to.
        gone: called once, when it is found that nobody reads.
    """

    def __init__(self, stream: TextIO, gone: Callable[[], None]) -> None:
        self.stream = stream
        self.gone = gone

    def write(self, text: str) -> int:
        with self._surviving():
            return self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._surviving():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in GONE:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())  # what is in the buffer, and libraries, write there as well
            os.close(nowhere)
            self.gone()


@contextlib.contextmanager
def surviving_streams(gone: Callable[[], None]) -> Iterator[None]:
    """Within it the standard streams may lose their reader: ``gone`` is called once for each."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Stream(stream, gone) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def quick_end() -> Iterator[None]:
    """Within it, while slow imports run, Ctrl-C ends this process with one line and exit code 130.

    What is imported stays, so nothing is collected meanwhile.
    """
    with _nothing_collected(), _ended_by_interrupt():
        yield


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Looking through half a million objects again and again takes a tenth of the imports' time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def _ended_by_interrupt() -> Iterator[None]:
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not in_main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def in_main_thread() -> bool:
    """Whether this thread may set handlers of signals."""
    return threading.current_thread() is threading.main_thread()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End at once: an import that is cut short leaves nothing to clean up, and would make a traceback of it."""
    os.write(2, b"error: interrupted\n")
    os._exit(130)

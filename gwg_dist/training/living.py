"""One process writes in a folder, for as long as it lives.

The owner locks a file in the folder and writes into it who it is. The system gives the lock back when the owner ends,
however it ends, so that a lock is never stale. Not implemented: telling whether an owner on another machine is alive
where the filesystem has no locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gwg_dist.tools.errors import InputError
from gwg_dist.tools.files import make_folder

LOCK = ".lock"
HELD = (errno.EWOULDBLOCK, errno.EACCES)


class Owner(NamedTuple):
    """The process that writes in a folder.

    Args:
        host: name of its machine.
        pid: its number there.
        born: when the machine started it, in the machine's own ticks; another process of that number has another.
        since: time of day at which it took the folder.
        job: what its launcher calls the job, "" where it has no name.
    """

    host: str
    pid: int
    born: str
    since: str
    job: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}{f', {self.job}' if self.job else ''}"

    def is_gone(self) -> bool:
        """Whether it surely lives no more: a process of this machine that is not there."""
        found = born(self.pid)
        return self.host == socket.gethostname() and (found == "" or found != self.born)


def myself(job: str | None) -> Owner:
    """This process as an owner."""
    return Owner(socket.gethostname(), os.getpid(), born(os.getpid()), time.strftime("%Y-%m-%d %H:%M:%S"), job or "")


def born(pid: int) -> str:
    """When a process of this machine began; "" where there is none, "?" where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return "" if Path("/proc/self/stat").is_file() else "?"


@contextlib.contextmanager
def owned(folder: Path, *, new: bool = False, job: str | None = None, name: str = "run_dir") -> Iterator[Path]:
    """Within it this process alone writes in the folder that this yields.

    A folder that was made here and in which nothing was written is taken away at the end. A lock that an earlier start
    of the same job left on another machine does not count.

    Args:
        folder: the folder; it is made where it is not there.
        new: whether it must not be there yet: FOLDER-2, FOLDER-3, ... are tried in its place.
        job: what the launcher calls this job; None where it has no name.
        name: setting that named the folder.

    Raises:
        InputError: a folder in which another process writes, or one that cannot be written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    if new:
        folder = make_new(folder, name=name)
        made = [folder, *made[1:]] if made else [folder]
    make_folder(folder, name=name)
    file = _lock(folder, job, name)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
            if made and {path.name for path in folder.iterdir()} == {LOCK}:
                (folder / LOCK).unlink()
                for path in made:
                    path.rmdir()
        os.close(file)


def make_new(folder: Path, *, name: str) -> Path:
    """Make ``folder``, or else FOLDER-2, FOLDER-3, ...: the first that no other process has made.

    Raises InputError, which names the setting ``name``, where no folder can be made there.
    """
    wanted, number = folder, 1
    while True:
        try:
            wanted.mkdir(parents=True)
        except FileExistsError:
            number += 1
            wanted = folder.with_name(f"{folder.name}-{number}")
        except OSError as error:
            raise InputError(f"{name}: {wanted} cannot be made: {error.strerror}") from error
        else:
            return wanted


def writer_of(folder: Path) -> Owner | None:
    """The process that writes in a folder, as far as its lock says; None where none does or where it is surely gone."""
    try:
        owner = Owner(**json.loads((folder / LOCK).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return None if owner.is_gone() else owner


def _lock(folder: Path, job: str | None, name: str) -> int:
    """The descriptor that the lock lasts as long as. Raises InputError where another process holds it."""
    path, me = folder / LOCK, myself(job)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        owner = _read(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = False
        except OSError as error:  # a filesystem without locks: what the file says is all that there is
            held = error.errno in HELD or (owner is not None and not owner.is_gone())
        if held and not (owner is not None and job and owner.job == job and owner.host != me.host):
            os.close(file)
            raise InputError(
                f"{name}: {folder} is in use ({owner or 'by a process that has not said its name yet'}): "
                f"choose another --{name}, or wait until it has ended"
            )
        if path.is_file() and os.path.samestat(os.fstat(file), path.stat()):
            break
        os.close(file)  # its owner took it away, at its end, between open and lock
        make_folder(folder, name=name)
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name in it
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(me._asdict()).encode(), 0)
    return file


def _read(file: int) -> Owner | None:
    """Who the file says that it belongs to; None where it says nothing."""
    try:
        return Owner(**json.loads(os.pread(file, 10_000, 0)))
    except (ValueError, TypeError):
        return None

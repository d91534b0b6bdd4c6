"""What a command line prints as one line, without a traceback, and what ends a run early."""


class InputError(ValueError):
    """A setting, a file or a checkpoint that does not fit. Exit code 2."""


class DivergedError(RuntimeError):
    """Training left the numbers that mean something. Exit code 3; the last checkpoint stays."""


class LostError(RuntimeError):
    """Something outside this process failed: a peer is gone, a disk is full. Exit code 1; the last checkpoint stays.

    Args:
        message: one line for people.
        seen_by_all: whether rank 0 sees the same, and says it.
    """

    def __init__(self, message: str, *, seen_by_all: bool = True) -> None:
        super().__init__(message)
        self.seen_by_all = seen_by_all


class Stopped(BaseException):
    """A signal asked this process to end. Not an Exception, so that no library takes it for an error.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number

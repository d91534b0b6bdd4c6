"""What a command line prints as one line, without a traceback, and what ends a run early."""


class InputError(ValueError):
    """A setting, a file or a checkpoint that does not fit. Exit code 2."""


class RankError(InputError):
    """One that this process may see alone: printed whatever its rank. Other mistakes are rank 0's to report."""


class DivergedError(RuntimeError):
    """Training left the numbers that mean something. Exit code 3; the last checkpoint stays."""


class LostError(RuntimeError):
    """Something outside this process failed: a peer is gone, a disk is full. Exit code 1; the last checkpoint stays."""


class Stopped(BaseException):
    """A signal asked this process to end. Not an Exception, so that no library takes it for an error.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number

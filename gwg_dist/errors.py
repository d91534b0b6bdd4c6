"""What a command line prints as one line, without a traceback."""


class InputError(ValueError):
    """A setting, a file or a checkpoint that does not fit. Exit code 2."""


class DivergedError(RuntimeError):
    """Training left the numbers that mean something. Exit code 3; the last checkpoint stays."""

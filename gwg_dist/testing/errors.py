"""What a check raises."""


class CheckError(AssertionError):
    """A kernel, an energy or a loss is not what it must be; the message says where and what to look at."""

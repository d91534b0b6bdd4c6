"""Count the different points of a data file.

python -m gwg_dist.count my.npz
python -m gwg_dist.count my.npz --show 3
"""

from __future__ import annotations

from gwg_dist.tools.commands import run_command
from gwg_dist.tools.errors import InputError


def count(path: str, *, show: int = 0) -> None:
    """Print how many points the training split has, how many are different, and the commonest.

    Args:
        path: a .npz or .npy of integers, see ``gwg_dist.data.Arrays``.
        show: how many of the commonest points to print.

    Raises:
        InputError: a negative ``show``, a file that cannot be used.
    """
    if show < 0:
        raise InputError(f"show must not be negative, got {show}")
    from gwg_dist.data import Arrays  # takes a second that --help need not wait for

    codes = Arrays(path, batch_size=1).splits.train
    points, times = codes.unique(dim=0, return_counts=True)
    print(f"{len(codes)} points, {len(points)} different")
    for row in times.argsort(descending=True)[:show]:
        print(f"{int(times[row])} times {points[row].tolist()}")


def main(args: list[str] | None = None) -> None:
    """The command line. Exits with 2 for a mistake."""
    run_command(count, args, prog="python -m gwg_dist.count", description=__doc__)


if __name__ == "__main__":
    main()

"""Time the kernels against the step as published, alternately in one process.

python -m gwg_dist.bench                        all rows
python -m gwg_dist.bench --quick                a few minutes
python -m gwg_dist.bench --only resnet          rows with this in their name
python -m gwg_dist.bench --sweep                step time against chains, sites and categories, and a plot
python -m gwg_dist.bench --only ddp             one process against two
python -m gwg_dist.bench --only training        what a gradient buys in training, kernel by kernel
python -m gwg_dist.bench --only calibration     how often stated intervals of log Z hold it, on 200 small models
python -m gwg_dist.bench --only threads         kernels in C, one thread against two

Both sides run on one thread (process CPU time) or on one GPU (wall time, synchronised), in alternating rounds, with the
same weights, chains and allocator; figures are medians over the rounds, the ratio is the median of the rounds' ratios.
"""

from gwg_dist.bench.cli import main

__all__ = ["main"]

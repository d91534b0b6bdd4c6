"""Sweeps: many runs over a space of settings, on Ray Tune.

python -m gwg_dist.tune --config digits
python -m gwg_dist.tune --config digits --num_trials 32 -- --model.num_steps=5
python -m gwg_dist.tune --resume SWEEP
What follows ``--`` are settings of gwg_dist.fit, for all trials.

Every trial is a run of ``gwg_dist.fit`` in a folder of its own, SWEEP/trials/NUMBER. These folders are all that a sweep
remembers: a trial, a worker or the sweep itself that died goes on from them, on this machine or on any that sees the
disk. A likelihood whose AIS weights have collapsed counts as the worst of all. Not implemented: trials of different
sizes in one sweep, population based training with several workers a trial.
"""

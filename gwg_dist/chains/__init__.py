"""Where chains start, and what is kept of them: persistent chains in a replay buffer, or chains from the data.

Everything a sampler needs to know is the point it starts from, so CD-k, PCD and restarts differ in these files only. A
source holds x alone: values and gradients are evaluated afresh, because the weights have changed since.
"""

from gwg_dist.chains.base import ChainSource, Start, StartAndKeep
from gwg_dist.chains.buffer import ChainBuffer
from gwg_dist.chains.data import DataChains
from gwg_dist.chains.saved import check_saved_chains, restore_chains, save_chains
from gwg_dist.chains.tempered import TemperedChains

__all__ = [
    "ChainBuffer",
    "ChainSource",
    "DataChains",
    "Start",
    "StartAndKeep",
    "TemperedChains",
    "check_saved_chains",
    "restore_chains",
    "save_chains",
]

"""Energies: one file each."""

from gwg_dist.energies.base import Energy
from gwg_dist.energies.fhmm import FHMMEnergy
from gwg_dist.energies.ising import IsingEnergy, IsingTorusEnergy
from gwg_dist.energies.ising_graph import IsingGraphEnergy
from gwg_dist.energies.mlp import MLPEnergy
from gwg_dist.energies.potts import PottsEnergy
from gwg_dist.energies.rbm import RBMEnergy
from gwg_dist.energies.resnet import ResNetEnergy
from gwg_dist.energies.transformer import TransformerEnergy

__all__ = [
    "Energy",
    "FHMMEnergy",
    "IsingEnergy",
    "IsingGraphEnergy",
    "IsingTorusEnergy",
    "MLPEnergy",
    "PottsEnergy",
    "RBMEnergy",
    "ResNetEnergy",
    "TransformerEnergy",
]

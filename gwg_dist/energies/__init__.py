"""Energies: one file each."""

from gwg_dist.energies.base import Energy
from gwg_dist.energies.edges import EdgeFile, Edges, ErdosRenyi, Lattice
from gwg_dist.energies.fhmm import FHMMEnergy
from gwg_dist.energies.independent import IndependentEnergy
from gwg_dist.energies.ising import IsingEnergy, IsingTorusEnergy
from gwg_dist.energies.ising_graph import IsingGraphEnergy
from gwg_dist.energies.mlp import MLPEnergy
from gwg_dist.energies.potts import PottsEnergy
from gwg_dist.energies.potts_graph import PottsGraphEnergy
from gwg_dist.energies.rbm import RBMEnergy
from gwg_dist.energies.resnet import ResNetEnergy
from gwg_dist.energies.transformer import TransformerEnergy

__all__ = [
    "EdgeFile",
    "Edges",
    "Energy",
    "ErdosRenyi",
    "FHMMEnergy",
    "IndependentEnergy",
    "IsingEnergy",
    "IsingGraphEnergy",
    "IsingTorusEnergy",
    "Lattice",
    "MLPEnergy",
    "PottsEnergy",
    "PottsGraphEnergy",
    "RBMEnergy",
    "ResNetEnergy",
    "TransformerEnergy",
]

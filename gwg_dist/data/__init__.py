"""Data sets: one file each."""

from gwg_dist.batch import Batch
from gwg_dist.data.alignment import Alignment
from gwg_dist.data.arrays import Arrays
from gwg_dist.data.base import DiscreteData, Splits
from gwg_dist.data.describe import describe
from gwg_dist.data.digits import Digits
from gwg_dist.data.image_sets import CaltechSilhouettes, FreyFaces, Histopathology, Omniglot
from gwg_dist.data.images import Images
from gwg_dist.data.ising import IsingSamples
from gwg_dist.data.mnist import MNIST, FashionMNIST
from gwg_dist.data.synthetic import ModelSamples
from gwg_dist.data.tables import Table
from gwg_dist.data.text import Text

__all__ = [
    "MNIST",
    "Alignment",
    "Arrays",
    "Batch",
    "CaltechSilhouettes",
    "Digits",
    "DiscreteData",
    "FashionMNIST",
    "FreyFaces",
    "Histopathology",
    "Images",
    "IsingSamples",
    "ModelSamples",
    "Omniglot",
    "Splits",
    "Table",
    "Text",
    "describe",
]

"""Where examples come from: built-in data sets, folders of pictures, arrays."""

from quickstudy.data.dataset import ClassDataset, Splits
from quickstudy.data.omniglot import omniglot

__all__ = ["ClassDataset", "Splits", "omniglot"]

"""Where examples come from: built-in data sets, folders of pictures, arrays."""

from quickstudy.data.dataset import ClassDataset, Splits
from quickstudy.data.digits import digits
from quickstudy.data.folder import from_folder
from quickstudy.data.from_arrays import from_arrays
from quickstudy.data.from_torch import from_torch
from quickstudy.data.glyphs import glyphs
from quickstudy.data.images import read_image
from quickstudy.data.omniglot import omniglot
from quickstudy.data.polarity import polarity
from quickstudy.data.quickdraw import country, quickdraw
from quickstudy.data.sources import describe, load, names

__all__ = [
    "ClassDataset",
    "Splits",
    "country",
    "describe",
    "digits",
    "from_arrays",
    "from_folder",
    "from_torch",
    "glyphs",
    "load",
    "names",
    "omniglot",
    "polarity",
    "quickdraw",
    "read_image",
]

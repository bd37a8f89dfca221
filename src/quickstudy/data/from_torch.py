"""A map-style torch data set of (picture, label) pairs, such as torchvision's, as a `ClassDataset`."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from quickstudy.data.dataset import ClassDataset
from quickstudy.data.images import convert, plain
from quickstudy.errors import DataError


def from_torch(dataset: Any, *, name: str | None = None) -> ClassDataset:
    """Every pair of a torch data set, in memory.

    Args:
        dataset: has a length and gives `(x, label)` pairs; `x` is a Pillow picture, or a tensor or array
            `[C, H, W]`, `[H, W]` or `[D]`, all of one shape. Its `classes`, if any, name the labels.
        name: what the data set is called; by default the name of its class.

    Raises:
        DataError: no pairs, or examples whose shapes differ; the message names the first.

    Example:
        >>> pairs = torch.utils.data.TensorDataset(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]))
        >>> from_torch(pairs)
        ClassDataset(TensorDataset: 2 classes, 2 examples each, 1x8x8 torch.float32)
    """
    name = name or type(dataset).__name__
    examples: list[np.ndarray] = []
    labels: list[Any] = []
    if not hasattr(dataset, "__len__"):
        raise DataError(f"{name}: its length is not known; only map-style data sets can be taken")
    for i in range(len(dataset)):
        pair = dataset[i]
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"{name}: example {i} is no (picture, label) pair but a {type(pair).__name__}")
        x, label = pair
        if isinstance(x, Image.Image):
            x = plain(x)
            x = convert(x, "grey" if x.mode == "L" else "rgb")
        examples.append(np.asarray(x))
        labels.append(label.item() if hasattr(label, "item") else label)
        if examples[i].shape != examples[0].shape:
            raise DataError(
                f"{name}: example {i} has shape {examples[i].shape}, but the first {examples[0].shape}; "
                "resize them in the data set's own transform"
            )
    if not examples:
        raise DataError(f"{name}: no examples")
    whole = dataset
    while not hasattr(whole, "classes") and hasattr(whole, "dataset"):  # a torch.utils.data.Subset
        whole = whole.dataset
    classes = getattr(whole, "classes", None)
    names = [str(classes[label]) for label in sorted(set(labels))] if classes else None
    return ClassDataset.from_arrays(np.stack(examples), labels, names=names, name=name)

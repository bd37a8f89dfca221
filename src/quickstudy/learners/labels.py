"""How a net is told a class, and says one: Santoro et al. 2016, arXiv 1605.06065, section 4.1.1.

A class is written in letters, each of which is one of some outputs, and its probability is the product of
its letters'. One-hot, it is a single letter of an alphabet of `way`; as a string it is five letters of an
alphabet of five, 25 numbers of which five are 1, and there are 3125 of them, enough for any way.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Labels = Literal["one-hot", "strings"]
LETTERS = 5
"""Letters in the alphabet of strings, and in a string."""
STRINGS = LETTERS**LETTERS


def strings(numbers: Tensor) -> Tensor:
    """Strings by their numbers `[N]`, 0 to 3124, as 0 and 1 `[N, 25]`, letter after letter.

    >>> strings(torch.tensor([0, 7])).nonzero()[:, 1].tolist()  # aaaaa, and cbaaa
    [0, 5, 10, 15, 20, 2, 6, 10, 15, 20]
    """
    places = LETTERS ** torch.arange(LETTERS, device=numbers.device)
    return F.one_hot(numbers[:, None] // places % LETTERS, LETTERS).flatten(1)


def apart(way: int) -> Tensor:
    """Numbers of strings `[way]`, no two alike, of which neighbours differ in every letter.

    >>> apart(3).tolist()  # aaaaa, bbbbb, ccccc
    [0, 781, 1562]
    """
    return torch.arange(way) * (STRINGS // (LETTERS - 1)) % STRINGS


def log_likelihoods(outputs: Tensor, codes: Tensor, letters: int) -> Tensor:
    """How likely a net's outputs `[…, L]` are to say each class `[…, N]`, as logarithms.

    Args:
        codes: how classes are written, as 0 and 1 `[N, L]`.
        letters: in the alphabet.

    >>> log_likelihoods(torch.tensor([0.0, 0.0, 0.0]), torch.eye(3)[:2], letters=3).exp()
    tensor([0.3333, 0.3333])
    """
    return outputs.unflatten(-1, (-1, letters)).log_softmax(-1).flatten(-2) @ codes.T

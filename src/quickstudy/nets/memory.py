"""A memory of rows, read and written by weights: Graves, Wayne, Danihelka 2014, arXiv 1410.5401, section 3.

A head has a weight w(i) for each row of the memory M. It reads, erases by e and adds a:

    r = Σᵢ w(i) M(i),   M̃(i) = M(i) ⊙ (1 − w(i) e),   M'(i) = M̃(i) + w(i) a,

and finds rows by their content, with a key k, its strength β and the cosine similarity K:

    w(i) = exp(β K[k, M(i)]) / Σⱼ exp(β K[k, M(j)]).

All are pure functions of a memory `[…, R, W]`, R rows, heads' weights `[…, H, R]` and vectors `[…, H, W]`.
"""

from __future__ import annotations

from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Vectors `[…, W]` of length 1; those well below 0.001, as of an empty row, stay short.

    >>> import torch
    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()


def by_content(memory: Tensor, key: Tensor, strength: Tensor) -> Tensor:
    """Weights `[…, H, R]` of the rows that are like the keys `[…, H, W]`, by strengths `[…, H]`.

    >>> import torch
    >>> memory = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> by_content(memory, torch.tensor([[0.0, 5.0]]), torch.tensor([50.0])).round()
    tensor([[0., 1.]])
    """
    return (strength[..., None] * (unit(key) @ unit(memory).mT)).softmax(-1)


def read(memory: Tensor, weights: Tensor) -> Tensor:
    """What heads with these weights `[…, H, R]` read: `[…, H, W]`."""
    return weights @ memory


def erased(memory: Tensor, weights: Tensor, erase: Tensor) -> Tensor:
    """The memory after heads with these weights `[…, H, R]` erased by vectors `[…, H, W]` in 0…1.

    >>> import torch
    >>> erased(torch.ones(2, 3), torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0, 1.0, 0.0]]))
    tensor([[0.0000, 0.0000, 1.0000],
            [0.5000, 0.5000, 1.0000]])
    """
    for w, e in zip(weights.unbind(-2), erase.unbind(-2), strict=True):  # one after the other: their product
        memory = memory * (1 - w[..., :, None] * e[..., None, :])
    return memory


def added(memory: Tensor, weights: Tensor, add: Tensor) -> Tensor:
    """The memory after heads with these weights `[…, H, R]` added vectors `[…, H, W]`."""
    return memory + weights.mT @ add

"""Attention (Vaswani et al. 2017, arXiv 1706.03762) in operations that any map can map."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    allowed: Tensor | None = None,
    counts: Tensor | None = None,
    own: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Scaled dot-product attention, softmax(q kᵀ / √D) v.

    Args:
        q: queries `[…, q, D]`.
        k, v: keys `[…, n, D]` and values `[…, n, E]`.
        allowed: bool `[q, n]`, which keys a query may see; all where None.
        counts: what each key counts `[n]`: one of 2 as two of 1; all 1 where None.
        own: one more key `[…, q, D]` and value `[…, q, E]` for each query, which no other query sees.

    Returns:
        `[…, q, E]`.

    >>> q, v = torch.zeros(3, 4), torch.tensor([[1.0], [2.0], [6.0]])
    >>> attend(q, q, v)[:, 0], attend(q, q, v, allowed=torch.ones(3, 3, dtype=torch.bool).tril())[:, 0]
    (tensor([3., 3., 3.]), tensor([1.0000, 1.5000, 3.0000]))
    """
    scores = q @ k.mT  # [..., q, n]
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    if counts is not None:
        scores = scores + math.sqrt(q.shape[-1]) * counts.log()
    if own is not None:
        scores = torch.cat([scores, (q * own[0]).sum(-1, keepdim=True)], -1)  # [..., q, n + 1]
    share = (scores / math.sqrt(q.shape[-1])).softmax(-1)
    if own is None:
        return share @ v
    return share[..., :-1] @ v + share[..., -1:] * own[1]


class Attention(nn.Module):
    """Multi-head attention: several attentions side by side, each between learned projections.

    It begins as a soft look-up: keys and queries are projected alike, so that like attends to like, and what
    a value told comes out as it went in.

    Args:
        width: of all heads together.
        heads: how many; a divisor of `width`.

    Raises:
        UserError: heads of unequal width.

    >>> Attention(8, heads=2)(torch.randn(3, 8), torch.randn(5, 8)).shape
    torch.Size([3, 8])
    """

    def __init__(self, width: int, heads: int = 1) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"{heads} heads cannot share {width} numbers: choose a divisor")
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        with torch.no_grad():
            nn.init.orthogonal_(self.key.weight)
            self.query.weight.copy_(self.key.weight)
            nn.init.orthogonal_(self.value.weight)
            self.out.weight.copy_(self.value.weight.T)
            self.out.bias.zero_()

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        told: Tensor | None = None,
        itself: bool = False,
        counts: Tensor | None = None,
    ) -> Tensor:
        """What `x` `[q, width]` finds in a context `[n, width]`: `[q, width]`.

        Args:
            told: the context's values `[n, width]`; by default the context itself.
            itself: whether each row of `x` attends to itself too, though to no other.
            counts: what each row of the context counts `[n]`; by default 1.
        """
        q, k = self.split(self.query(x)), self.split(self.key(context))  # [h, q, d], [h, n, d]
        v = self.split(self.value(context if told is None else told))
        own = (self.split(self.key(x)), self.split(self.value(x))) if itself else None
        return self.out(attend(q, k, v, own=own, counts=counts).transpose(0, 1).flatten(1))

    def split(self, x: Tensor) -> Tensor:
        """`[n, width]` → `[heads, n, width / heads]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)


class TransformerBlock(nn.Module):
    """A pre-norm block (Xiong et al. 2020, arXiv 2002.04745): attention, then a layer of units, each added to
    what it was given.

    Args:
        width: numbers of a token.
        heads: of the attention; a divisor of `width`.

    >>> TransformerBlock(8, 2)(torch.randn(3, 8), torch.randn(5, 8)).shape
    torch.Size([3, 8])
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.units = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, context: Tensor, itself: bool = False, counts: Tensor | None = None
    ) -> Tensor:
        """Tokens `[q, width]` that looked at a context `[n, width]`, with `itself` each at itself too.

        Args:
            counts: what each row of the context counts `[n]`; by default 1.
        """
        x = x + self.attention(self.norm(x), self.norm(context), itself=itself, counts=counts)
        return x + self.units(x)

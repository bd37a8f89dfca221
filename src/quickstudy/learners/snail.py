"""A simple neural attentive meta-learner: Mishra, Rohaninejad, Chen, Abbeel 2018, arXiv 1707.03141.

ω are the weights of causal layers over a sequence (x₁, y₁), …, (xₙ, yₙ), (x, –), whose last element is a
query without its label. Temporal convolutions gather what is near, attention finds what is far:

    attention(64, 32), convolutions, attention(256, 128), convolutions, attention(512, 256), linear.

No layer looks ahead: the support set is gone through once, and each query goes on from there by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learners.base import Outer
from quickstudy.learners.calling import width
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.targets import label_rows
from quickstudy.nets.temporal import CausalAttention, TemporalBlock
from quickstudy.options import at_least_one
from quickstudy.tasks.task import Support


class SNAIL(EmbeddingLearner):
    """SNAIL (Mishra et al. 2018): causal convolutions and attention over the support set and a query.

    Args:
        body: any module with a `features` attribute.
        way: classes it answers, or output dimensions of a regression.
        filters: of each temporal convolution; the paper has 128, for long training.
        reach: how many examples back the convolutions look, of a support set of any size; attention sees all.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner = SNAIL(mlp(4), way=3, filters=16)
        >>> learner.adapt(torch.rand(6, 4), torch.arange(6) % 3)(torch.rand(5, 4)).shape
        torch.Size([5, 3])
    """

    outer = Outer(meta_batch=16, outer_lr=1e-3, schedule="cosine", train_query=5)

    def __init__(self, body: nn.Module, *, way: int, filters: int = 32, reach: int = 31) -> None:
        super().__init__(body)
        at_least_one(way=way, filters=filters, reach=reach)
        self.way, self.filters, self.reach = way, filters, reach
        self.layers = CausalNet(width(body) + way, filters, reach, way)

    @property
    def reads_in_order(self) -> bool:
        return True

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        y, layers = label_rows(support, self.way, z.dtype), self.held(self.layers)  # [n, way]
        past, answered = torch.cat([z, y], -1), support.way or support.y.shape[-1]

        def answer(q: Tensor) -> Tensor:
            unlabelled = F.pad(q, (0, self.way))  # [q, D + way]
            return layers(past, unlabelled)[:, :answered]

        return answer


class CausalNet(nn.Module):
    """The layers: a past `[n, C]` and what may come next `[q, C]` → outputs for the latter `[q, outputs]`.

    >>> CausalNet(6, filters=8, reach=3, outputs=2)(torch.randn(4, 6), torch.randn(9, 6)).shape
    torch.Size([9, 2])
    """

    def __init__(self, inputs: int, filters: int, reach: int, outputs: int) -> None:
        super().__init__()
        self.find = CausalAttention(inputs, 64, 32)
        self.gather = TemporalBlock(self.find.outputs, filters, reach)
        self.find_again = CausalAttention(self.gather.outputs, 256, 128)
        self.gather_again = TemporalBlock(self.find_again.outputs, filters, reach)
        self.find_last = CausalAttention(self.gather_again.outputs, 512, 256)
        self.head = nn.Linear(self.find_last.outputs, outputs)

    def forward(self, past: Tensor, now: Tensor) -> Tensor:
        for layer in (self.find, self.gather, self.find_again, self.gather_again, self.find_last):
            past, now = layer(past, now)
        return self.head(now)

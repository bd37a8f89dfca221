"""Siamese networks for one-shot recognition: Koch, Zemel, Salakhutdinov 2015.

ω is an embedding f, the same for both pictures of a pair, and the weights of a score, the log-odds that both
are of one class:

    s(x, x') = Σ_d α_d |f(x)_d − f(x')_d| + b   (weighted L1), or   α cos(f(x), f(x')) + b,

trained by the cross-entropy of σ(s) on pairs of equal and of different classes, of pictures each distorted on
its own (`--augment affine`, as usual here). The paper embeds the two pictures of each pair; here a task's
examples are embedded once and pairs drawn among them, so that a thousand cost little more than one. The
paper's features end in a sigmoid, these are the body's.

A query is of the class it most likely makes a pair with: its logits are the log-odds themselves, with
several support examples a class their mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError, unknown
from quickstudy.inner.outcome import Outcome
from quickstudy.learners.calling import width
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.options import at_least_one
from quickstudy.tasks.task import Support, Task

Head = Literal["l1", "cosine"]


class Siamese(EmbeddingLearner):
    """Siamese networks: do two pictures show the same class? Any way, any shot.

    Beside the accuracy, `verification` is how often pairs of a query and a class are told right, equal and
    different ones counting alike.

    Args:
        body: the embedding, with a `features` attribute.
        head: the score of a pair, by weighted L1 distance or by cosine.
        pairs: pairs that a task's examples are made into in meta-training, half of them of one class.

    Example:
        >>> from quickstudy.nets import mlp
        >>> x = torch.rand(6, 3)
        >>> Siamese(mlp(3)).adapt(x, [0, 1, 2, 0, 1, 2])(x).shape
        torch.Size([6, 3])
    """

    needs_every_class = True
    outer = replace(EmbeddingLearner.outer, augment="affine")

    def __init__(self, body: nn.Module, *, head: Head = "l1", pairs: int = 1000) -> None:
        super().__init__(body)
        if head not in get_args(Head):
            raise unknown("head", head, get_args(Head))
        at_least_one(pairs=pairs)
        if pairs < 2:
            raise UserError(f"pairs must be at least 2, an equal and a different one, not {pairs}")
        self.head: Head = head
        self.pairs = pairs
        self.score = nn.Linear(width(body) if head == "l1" else 1, 1)
        # At first what is farther apart is less alike already, by odds that suit features of unit scale:
        # from odds near zero the embedding hardly moves.
        nn.init.constant_(self.score.weight, -10.0 / width(body) if head == "l1" else 10.0)
        nn.init.constant_(self.score.bias, 6.0 if head == "l1" else -6.0)

    def compared(self, a: Tensor, b: Tensor) -> Tensor:
        """What the score weighs, of features `[…, D]` and `[…, D]`: `[…, D]`, or their cosine `[…, 1]`."""
        return (a - b).abs() if self.head == "l1" else F.cosine_similarity(a, b, dim=-1)[..., None]

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        score, compared = self.held(self.score), self.compared
        member = F.one_hot(support.y, support.ways).to(z.dtype)  # [n, N]
        share = member / member.sum(0)
        return lambda q: score(compared(q[:, None], z)).squeeze(-1) @ share  # [q, n] to [q, N]

    def judge(self, task: Task) -> Outcome:
        outcome = super().judge(task)
        assert outcome.outputs is not None
        same = F.one_hot(task.query.y, task.support.ways).bool()  # [q, N]
        return replace(outcome, metrics={**outcome.metrics, "verification": told(outcome.outputs, same)})

    def prepare(self, batch: Task, generator: torch.Generator) -> Task:
        """Draw pairs, as rows `[T, P, 2]` of support and query set."""
        support, query = batch.support, batch.query
        y = torch.cat([support.y, query.y], 1)  # [T, m]
        there = torch.cat([present(part.y, part.mask) for part in (support, query)], 1)
        u = torch.rand(len(y), self.pairs, 2, generator=generator).to(y.device)
        first = drawn(there[:, None].expand(-1, self.pairs, -1), u[..., 0])  # [T, P]
        alike = y[:, None] == y.gather(1, first)[..., None]  # [T, P, m]
        equal = (torch.arange(self.pairs, device=y.device) % 2 == 0)[:, None]
        others = torch.arange(y.shape[1], device=y.device) != first[..., None]
        second = drawn(there[:, None] & others & (alike == equal), u[..., 1])
        place = there.cumsum(1) - 1  # of a row once the padding is out
        pairs = torch.stack([place.gather(1, rows) for rows in (first, second)], -1)
        return replace(batch, extra={**batch.extra, "pairs": pairs})

    def forward(self, task: Task) -> Outcome:
        """The cross-entropy of the pairs that `prepare` drew."""
        a, b = task.extra["pairs"].unbind(-1)
        z, embed, moments = self.embedded(task.support)
        z, y = torch.cat([z, embed(task.query.x)]), torch.cat([task.support.y, task.query.y])  # [m, D], [m]
        scores = self.score(self.compared(z[a], z[b])).squeeze(-1)  # [P]
        same = y[a] == y[b]
        loss = F.binary_cross_entropy_with_logits(scores, same.to(scores.dtype))
        return Outcome(loss, {"loss": loss, "verification": told(scores, same)}, self.stats(moments))


def told(scores: Tensor, same: Tensor) -> Tensor:
    """The share of log-odds that are right, of equal and of different pairs separately, and then the mean.

    >>> told(torch.tensor([1.0, -1.0, -1.0, -2.0]), torch.tensor([True, True, False, False]))
    tensor(0.7500)
    """
    right = ((scores > 0) == same).to(scores.dtype)
    return torch.stack([(right * kind).sum() / kind.sum().clamp(min=1) for kind in (same, ~same)]).mean()


def present(y: Tensor, mask: Tensor | None) -> Tensor:
    """Which rows are no padding."""
    return torch.ones_like(y, dtype=torch.bool) if mask is None else mask


def drawn(among: Tensor, u: Tensor) -> Tensor:
    """One of the rows that are True in `[…, m]`, by a number `[…]` from 0 to 1; row 0 where none is.

    >>> drawn(torch.tensor([False, True, False, True]), torch.tensor(0.6))
    tensor(3)
    """
    place = (u * among.sum(-1)).long()  # which of them
    return (among.cumsum(-1) > place[..., None]).long().argmax(-1)

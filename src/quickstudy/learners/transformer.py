"""An in-context learner: general-purpose in-context learning, Kirsch, Harrison, Sohl-Dickstein, Metz 2022,
arXiv 2212.04458; prior-data fitted networks, Müller et al. 2022, arXiv 2112.10510.

Support set and queries are one sequence of tokens, a transformer reads it, and what it makes of a query's
token is the answer:

    support token = W f(xᵢ) + L yᵢ,   query token = W f(x) + ℓ,   answer = head(blocks(token)),

where ℓ says that the label is not known. The support set attends to itself, without positions; a query
attends to the support set and to itself, never to another query. Classes of unequally many examples count
alike where they are attended to. In meta-training a task's classes take random ones of the labels, so that
every label is learned, whatever the way. The net begins as a soft nearest neighbour (see `Attention`; the
head begins as L transposed), which spares it the long plateau that in-context learners otherwise begin with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learners.amortised import AmortisedLearner
from quickstudy.learners.calling import width
from quickstudy.learners.targets import check_way, counts
from quickstudy.nets.attention import TransformerBlock
from quickstudy.options import at_least_one
from quickstudy.tasks.task import Support, Task


class InContext(AmortisedLearner):
    """In-context transformer: it reads the support set and answers, in one forward pass; any shot.

    Args:
        body: the embedding of inputs, pictures or points.
        max_way: classes it answers at most, or values of a regression.
        hidden: numbers of a token.
        depth: blocks.
        heads: of each block's attention; a divisor of hidden.

    Example:
        >>> from quickstudy.nets import mlp
        >>> x, y = torch.rand(7, 2), torch.arange(7)
        >>> InContext(mlp(2)).adapt(x, y)(x).shape
        torch.Size([7, 7])
    """

    instead = "one made with a larger max_way (--max-way) answers more"

    def __init__(
        self, body: nn.Module, *, max_way: int = 20, hidden: int = 64, depth: int = 4, heads: int = 4
    ) -> None:
        at_least_one(max_way=max_way, hidden=hidden, depth=depth, heads=heads)
        super().__init__(body, max_way)
        self.max_way, self.hidden, self.depth, self.heads = max_way, hidden, depth, heads
        self.token = nn.Linear(width(body) + max_way + 1, hidden)
        self.blocks = nn.ModuleList(TransformerBlock(hidden, heads) for _ in range(depth))
        readout = nn.Linear(hidden, 2 * max_way)
        with torch.no_grad():  # a label is read as it is written
            readout.weight[:max_way] = self.token.weight[:, -max_way - 1 : -1].T
        self.head = nn.Sequential(nn.LayerNorm(hidden), readout)

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        token, head = self.held(self.token), self.held(self.head)
        blocks = [self.held(block) for block in self.blocks]
        h = token(torch.cat([z, F.pad(self.rows(support, z), (0, 1))], -1))  # [n, H]
        each = counts(support.y, z.dtype)
        seen = []  # the support set as each block finds it
        for block in blocks:
            seen.append(h)
            h = block(h, h, False, each)

        def answer(q: Tensor) -> Tensor:
            unknown = F.pad(q.new_ones(q.shape[0], 1), (self.columns, 0))
            h = token(torch.cat([q, unknown], -1))  # [q, H]
            for block, context in zip(blocks, seen, strict=True):
                h = block(h, context, True, each)
            return self.answer_in(head(h), support)

        return answer

    def prepare(self, batch: Task, generator: torch.Generator) -> Task:
        """Give each task's classes random ones of the `max_way` labels."""
        support, query = batch.support, batch.query
        if support.way is None:
            return batch
        check_way(support.way, self.max_way, self.instead)
        labels = torch.rand(len(support.y), self.max_way, generator=generator).argsort(-1)  # [T, W]
        labels = labels.to(support.y.device)
        return replace(
            batch,
            support=replace(support, y=labels.gather(1, support.y), way=self.max_way),
            query=replace(query, y=labels.gather(1, query.y)),
        )

"""What learners that read a stream have in common: an example a step, its label one step late.

After Hochreiter, Younger, Conwell 2001 and Santoro et al. 2016 (arXiv 1605.06065, section 2). A recurrent net
is shown (x₁, –), (x₂, y₁), (x₃, y₂), … and says ŷₜ before it is told yₜ:

    hₜ = cell([f(xₜ), yₜ₋₁], hₜ₋₁),   ŷₜ = W hₜ.

No weight moves: its state learns the task. In meta-training support and query set are one stream, in an order
drawn at random, and the loss is the mean over its steps. In use the support set is the stream, and each query
is shown right after it, by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import DataError, unknown
from quickstudy.inner.outcome import Outcome
from quickstudy.learners.base import Outer
from quickstudy.learners.calling import call, width
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.labels import LETTERS, STRINGS, Labels, apart, log_likelihoods, strings
from quickstudy.learners.targets import check_way
from quickstudy.nets.norm import Moments
from quickstudy.nets.scan import scan
from quickstudy.options import at_least_one
from quickstudy.tasks.task import Support, Task

AT_ONCE = 256
"""Queries that are answered at a time."""


class StreamLearner(EmbeddingLearner):
    """Learns by reading examples one after the other; a subclass says by what recurrent net.

    Args:
        body: any module with a `features` attribute.
        way: classes it answers, or output dimensions of a regression.
        cell: makes the recurrent net for inputs of a given width. `start(x)` is its first state and
            `cell(x, state)` the next, a tuple of tensors whose first is what the step gives out.
        labels: how it is told a class, and says one: one-hot; or strings of five letters, which are drawn
            anew for each task, and serve any number of ways.
    """

    outer = Outer(
        meta_batch=16,
        outer_lr=3e-3,
        schedule="cosine",
        clip=10.0,
        train_query=9,
        strategy="vmap",
        norm="layer",
    )  # a picture normalised by others of its stream would be shown those to come
    cell: Any

    def __init__(
        self, body: nn.Module, *, way: int, cell: Callable[[int], nn.Module], labels: Labels = "one-hot"
    ) -> None:
        super().__init__(body)
        at_least_one(way=way)
        if labels not in get_args(Labels):
            raise unknown("labels", labels, get_args(Labels))
        self.way, self.labels = way, labels
        self.letters, outputs = (way, way) if labels == "one-hot" else (LETTERS, LETTERS**2)
        inputs = width(body) + outputs
        self.cell = cell(inputs)
        given_out, *_ = self.cell.start(torch.zeros(inputs))
        self.head = nn.Linear(len(given_out), outputs)

    @property
    def reads_in_order(self) -> bool:
        return True

    @classmethod
    def fixed_way(cls, settings: Mapping[str, Any]) -> bool:
        """Strings serve any number of ways."""
        return settings.get("labels") != "strings"

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        cell, head, codes = self.held(self.cell), self.held(self.head), self.codes(support)
        late = one_late(support.y if codes is None else codes[support.y])
        heard = torch.cat([z, late[:-1]], -1)  # [n, D + L]
        _, state = scan(cell, heard, self.cell.start(heard[0]))

        def answered(q: Tensor) -> Tensor:
            x = torch.cat([q, late[-1].expand(q.shape[0], -1)], -1)
            given_out, *_ = cell(x, tuple(s.expand(q.shape[0], *s.shape) for s in state))
            return self.said(head(given_out), codes)

        # Each query changes a state of its own, a whole memory.
        return lambda q: torch.cat([answered(part) for part in q.split(AT_ONCE)])

    def codes(self, support: Support, numbers: Tensor | None = None) -> Tensor | None:
        """How the task's classes are written `[N, L]`; None for real targets, which are told as they are.

        Args:
            numbers: of their strings `[N]`; by default such as differ most.
        """
        like, way = support.x, support.way
        if way is None:
            values = support.y.shape[-1]
            if self.labels == "strings":
                raise DataError(
                    "support set: strings are for classes; real targets are told as they are (one-hot)"
                )
            if values != self.way:
                raise DataError(f"support set: {values} targets an example; this learner predicts {self.way}")
            return None
        if self.labels == "strings":
            numbers = apart(way).to(like.device) if numbers is None else numbers[:way]
            return strings(numbers).to(like.dtype)
        check_way(way, self.way, "with labels='strings' (--labels strings) it answers any number")
        return torch.eye(way, self.way, dtype=like.dtype, device=like.device)

    def said(self, outputs: Tensor, codes: Tensor | None) -> Tensor:
        """Log-likelihoods of the classes `[…, N]` by the head's outputs `[…, L]`; for real targets these."""
        return outputs if codes is None else log_likelihoods(outputs, codes, self.letters)

    def prepare(self, batch: Task, generator: torch.Generator) -> Task:
        """Draw the order of each stream, as numbers to sort by `[T, n]`, and the strings of its classes."""
        support, query = batch.support, batch.query
        tasks, n = len(support.x), support.x.shape[1] + query.x.shape[1]
        drawn = {"order": torch.rand(tasks, n, generator=generator)}
        if self.labels == "strings" and support.way is not None:
            drawn["strings"] = torch.rand(tasks, STRINGS, generator=generator).topk(support.way).indices
        return replace(batch, extra={**batch.extra, **{k: v.to(support.x.device) for k, v in drawn.items()}})

    def stream(self, task: Task) -> tuple[Tensor, Tensor, Moments]:
        """All examples as one stream: what is said at each step `[n, N]`, the labels `[n]`, and the support
        set's moments."""
        body, moments = self.body, self.support_moments()
        weights = self.weights(body)
        z = call(body, weights, task.support.x, moments)
        q = call(body, weights, task.query.x, self.query_moments(moments))
        z, y = torch.cat([z, q]), torch.cat([task.support.y, task.query.y])
        order = task.extra["order"][: len(y)].argsort()  # a smaller task's examples come before its padding
        z, y = z[order], y[order]
        codes = self.codes(task.support, task.extra.get("strings"))
        late = one_late(y if codes is None else codes[y])
        heard = torch.cat([z, late[:-1]], -1)  # [n, D + L]
        given_out, _ = scan(self.cell, heard, self.cell.start(heard[0]))
        return self.said(self.head(given_out), codes), y, moments

    def forward(self, task: Task) -> Outcome:
        """The mean loss over a stream; accuracy also at the first and second presentation of a class."""
        said, y, moments = self.stream(task)
        if task.support.way is None:
            loss = self.loss(said, y)
            return Outcome(loss, {"loss": loss}, self.stats(moments))
        loss = -said.gather(1, y[:, None]).mean()
        right = (said.argmax(-1) == y).to(said.dtype)
        first, second = by_presentation(right, y, task.support.way, 2).unbind()
        metrics = {"loss": loss, "accuracy": right.mean(), "accuracy_1": first, "accuracy_2": second}
        return Outcome(loss, metrics, self.stats(moments))


def one_late(told: Tensor) -> Tensor:
    """Labels `[n, L]` one step late: `[n + 1, L]`, the first of zeros."""
    return F.pad(told, (0, 0, 1, 0))


def by_presentation(right: Tensor, y: Tensor, way: int, most: int) -> Tensor:
    """The accuracy at the first presentation of a class, the second, … `[most]`; NaN where there is none.

    Args:
        right: 1 where an example of the stream was answered right, else 0 `[n]`.
        y: its labels `[n]`.
        way: number of classes.
        most: of how many presentations.

    >>> by_presentation(torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.tensor([1, 1, 0, 0]), way=2, most=2)
    tensor([0.5000, 0.5000])
    """
    so_far = F.one_hot(y, way).cumsum(0).gather(1, y[:, None])  # [n, 1]
    at = (so_far == torch.arange(1, most + 1, device=y.device)).to(right.dtype)  # [n, most]
    return right @ at / at.sum(0)

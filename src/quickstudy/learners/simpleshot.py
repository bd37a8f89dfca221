"""SimpleShot: Wang, Chao, Weinberger, van der Maaten 2019, arXiv 1911.04623.

One classifier over all meta-train classes is trained as usual, and its head thrown away. Features are centred
and brought to length 1 ("CL2N"),

    g(x) = (f(x) − f̄) / ‖f(x) − f̄‖,    f̄ = mean f(x) over the meta-train classes,

and a task's queries answered by the nearest class mean of g. The mean f̄ is a running average here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.inner.outcome import Outcome
from quickstudy.inner.rules import Params
from quickstudy.learners.calling import width
from quickstudy.learners.pretrain import PretrainCentroid, classified
from quickstudy.learners.protonet import prototypes
from quickstudy.learners.similarity import similarity
from quickstudy.tasks.task import Support, Task

KEPT = 0.95
"""The share of the mean feature that a meta-step leaves as it was: as of `BatchNorm`'s averages."""


class SimpleShot(PretrainCentroid):
    """SimpleShot: ordinary pretraining, then the nearest mean of centred features of length 1.

    Args:
        body: the embedding.
        classes: how many meta-train classes the pretraining head tells apart.
        temperature: what minus squared distances, from −4 to 0, are divided by; it changes how sure answers
            are, not which are given.

    Example:
        >>> from quickstudy.nets import conv4
        >>> learner = SimpleShot(conv4(16, norm="running"), classes=207)
    """

    centre: Tensor

    def __init__(self, body: nn.Module, *, classes: int, temperature: float = 0.3) -> None:
        super().__init__(body, classes=classes)
        similarity("euclidean", temperature)  # there is such a one
        self.temperature = temperature
        self.register_buffer("centre", torch.zeros(width(body)))  # f̄

    def forward(self, task: Task) -> Outcome:
        outcome, z = classified(self, self.body, self.pretraining_head, task)
        return replace(outcome, stats={**outcome.stats, "centre": z.detach().mean(0)})

    def after_step(self, stats: Mapping[str, Tensor], gradient: Params, progress: float) -> None:
        super().after_step(stats, gradient, progress)
        self.centre.lerp_(stats["centre"], 1 - KEPT)

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        alike, centre = similarity("euclidean", self.temperature), self.centre.clone()

        def g(features: Tensor) -> Tensor:
            return F.normalize(features - centre, dim=-1)

        c = prototypes(g(z), support.y, support.ways)
        return lambda q: alike(g(q), c)

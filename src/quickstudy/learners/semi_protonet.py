"""Semi-supervised prototypes: Ren, Triantafillou, Ravi, Snell, Swersky, Tenenbaum, Larochelle, Zemel 2018,
arXiv 1803.00676.

Prototypes cₙ of the labelled examples xᵢ are refined once by soft k-means over the unlabelled ones x̃ⱼ:

    cₙ ← (Σᵢ f(xᵢ) [yᵢ = n] + Σⱼ f(x̃ⱼ) wⱼₙ) / (Σᵢ [yᵢ = n] + Σⱼ wⱼₙ),   dⱼₙ = ‖f(x̃ⱼ) − cₙ‖²,

where an unlabelled example belongs to a class by

    soft         wⱼₙ = softmaxₙ(−dⱼₙ);
    distractor   the same with one more cluster for what is of no class here, at 0 and of a learned radius r,
                 whose logit is −‖f(x̃ⱼ)‖² / r² − log r;
    masked       softmaxₙ(−dⱼₙ) · σ(γₙ (βₙ − dⱼₙ / meanⱼ dⱼₙ)), the threshold βₙ and the slope γₙ by an MLP
                 from how the distances of all unlabelled examples to the prototype are distributed.

A query is taken to be of one of the classes: the distractor cluster is none of its answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import unknown
from quickstudy.learners.embedding import EmbeddingLearner
from quickstudy.learners.protonet import prototypes
from quickstudy.learners.similarity import squared_distances
from quickstudy.tasks.task import Support

Refinement = Literal["soft", "distractor", "masked"]


class SemiProtoNet(EmbeddingLearner):
    """Prototypes refined by unlabelled examples; without such, prototypical networks. Any way, any shot.

    From Python: `adapt(Support(x, y, unlabelled=u))`.

    Args:
        body: the embedding.
        refinement: soft k-means; with a distractor cluster, for unlabelled examples of no class of the task;
            or masked, which learns how far from a prototype an example may be.

    Example:
        >>> from quickstudy.nets import mlp
        >>> support = Support(torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1]), 2)
        >>> learner = SemiProtoNet(mlp(1, ()), refinement="soft")
        >>> unlabelled = torch.tensor([[9.0], [9.0], [9.0]])
        >>> [p([[3.5]]).argmax().item() for p in (learner.adapt(support), learner.adapt(
        ...     Support(support.x, support.y, 2, unlabelled=unlabelled)))]
        [1, 0]
    """

    needs_every_class = True
    uses_unlabelled = True
    outer = replace(EmbeddingLearner.outer, unlabelled=5)

    def __init__(self, body: nn.Module, *, refinement: Refinement = "masked") -> None:
        super().__init__(body)
        if refinement not in get_args(Refinement):
            raise unknown("refinement", refinement, get_args(Refinement))
        self.refinement: Refinement = refinement
        if refinement == "distractor":
            self.log_radius = nn.Parameter(torch.tensor(math.log(100.0)))
        if refinement == "masked":
            self.mask = nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 2))

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        c = prototypes(z, support.y, support.ways)  # [N, D]
        u = support.unlabelled  # features [u, D]
        if u is not None:
            member, weight = F.one_hot(support.y, support.ways).to(z.dtype), self.belonging(u, c)
            c = (member.T @ z + weight.T @ u) / (member.sum(0) + weight.sum(0))[:, None]
        return lambda q: -squared_distances(q, c)

    def belonging(self, u: Tensor, c: Tensor) -> Tensor:
        """How far unlabelled features `[u, D]` belong to the classes with prototypes `[N, D]`: `[u, N]`."""
        d = squared_distances(u, c)
        if self.refinement == "distractor":
            r = self.log_radius.exp()
            distractor = -u.square().sum(-1, keepdim=True) / r.square() - self.log_radius
            return torch.cat([-d, distractor], -1).softmax(-1)[:, :-1]
        if self.refinement == "masked":
            relative = d / (d.mean(0) + EPS)
            threshold, slope = self.mask(distribution(relative).detach()).exp().unbind(-1)  # [N] each
            return (-d).softmax(-1) * (slope * (threshold - relative)).sigmoid()
        return (-d).softmax(-1)


EPS = 1e-8
"""Added to what is divided by, for unlabelled examples that are all the same."""


def distribution(d: Tensor) -> Tensor:
    """How numbers `[u, N]` are distributed, column by column: least, largest, variance, skewness and excess
    kurtosis `[N, 5]`.

    >>> distribution(torch.tensor([[0.0], [2.0]]))
    tensor([[ 0.,  2.,  1.,  0., -2.]])
    """
    var, mean = torch.var_mean(d, 0, correction=0)
    standard = (d - mean) / (var + EPS).sqrt()
    skewness, kurtosis = standard.pow(3).mean(0), standard.pow(4).mean(0) - 3
    return torch.stack([d.amin(0), d.amax(0), var, skewness, kurtosis], -1)

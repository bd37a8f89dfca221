"""Ordinary pretraining on the meta-train classes: the controls a meta-learner has to beat.

Chen et al. 2019, arXiv 1904.04232: train one classifier over all meta-train classes, then throw its head
away. On a new task their "Baseline" trains a new linear head on frozen features; `PretrainFinetune` moves all
weights, with Adam. `PretrainCentroid` takes the nearest class mean, as Chen et al. 2020, arXiv 2003.04390
("Classifier-Baseline"), though by Euclidean distance where they take the cosine. As theirs, nets answer by
the running averages of pretraining.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.inner.outcome import Outcome
from quickstudy.learners.base import Learner, Outer
from quickstudy.learners.calling import call, width
from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.scratch import Scratch
from quickstudy.tasks.task import Task

PRETRAINING = Outer(meta_batch=1, outer_lr=1e-3, schedule="cosine", norm="running")


def classified(learner: Learner, body: nn.Module, head: nn.Linear, task: Task) -> tuple[Outcome, Tensor]:
    """Cross-entropy of one supervised batch over all meta-train classes, and its features `[n, D]`."""
    moments = learner.support_moments(kept=False)  # no queries to be normalised by them: the fused kernel
    z = call(body, learner.weights(body), task.query.x, moments)
    logits = head(z)  # [n, classes]
    loss = F.cross_entropy(logits, task.query.y)
    accuracy = (logits.argmax(-1) == task.query.y).float().mean()
    return Outcome(loss, {"loss": loss, "accuracy": accuracy}, learner.stats(moments)), z


class PretrainFinetune(Scratch):
    """Pretrained on the meta-train classes, then fine-tuned with a new head on the support set.

    Args:
        body: any module with a `features` attribute.
        way: classes a task's head answers.
        classes: how many meta-train classes the pretraining head tells apart.
        inner_lr: fine-tuning's Adam rate.
        steps: fine-tuning steps on the whole support set.
    """

    trains_on = "batches"
    outer = PRETRAINING

    def __init__(
        self, body: nn.Module, *, way: int, classes: int, inner_lr: float = 0.001, steps: int = 30
    ) -> None:
        super().__init__(body, way=way, inner_lr=inner_lr, steps=steps)
        self.classes = classes
        self.pretraining_head = nn.Linear(width(body), classes)

    def forward(self, task: Task) -> Outcome:
        return classified(self, self.net.body, self.pretraining_head, task)[0]

    def candidates(self) -> list[dict[str, Any]]:
        return [{"inner_lr": lr, "steps": n} for lr in (0.0003, 0.001, 0.01) for n in (10, 30)]


class PretrainCentroid(ProtoNet):
    """Pretrained on the meta-train classes, then nearest class mean.

    Args:
        body: any module with a `features` attribute.
        classes: how many meta-train classes the pretraining head tells apart.
    """

    trains_on = "batches"
    outer = PRETRAINING

    def __init__(self, body: nn.Module, *, classes: int) -> None:
        super().__init__(body)
        self.classes = classes
        self.pretraining_head = nn.Linear(width(body), classes)

    def forward(self, task: Task) -> Outcome:
        return classified(self, self.body, self.pretraining_head, task)[0]

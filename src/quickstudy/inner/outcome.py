"""What a learner returns for a task."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outer loss of one task, or `[T]` of them.

    Args:
        loss: what the meta-gradient is taken of.
        metrics: what training displays and evaluation averages (loss, accuracy …), scalars.
        stats: averaged over the batch of tasks and handed to the learner's `after_step`.
        outputs: the answers `[q, …]` to the query set, where a learner gives them.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    stats: dict[str, Tensor] = field(default_factory=dict)
    outputs: Tensor | None = None

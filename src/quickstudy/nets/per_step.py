"""Batch normalisation for each inner step (Antoniou, Edwards, Storkey 2019, MAML++, 1810.09502, section 4).

Each inner step has other weights, and so other activations: it gets running averages (BNRS), scales and
shifts (BNWB) of its own, a whole `BatchNorm`.
"""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.nets.norm import BatchNorm, inner_step
from quickstudy.nets.replace import replaced


class PerStep(nn.ModuleList):
    """A `BatchNorm` for each inner step, of which a call uses that of its step.

    The last one also serves the steps beyond it, and calls in no step, such as those on queries.
    """

    @property
    def current(self) -> BatchNorm:
        """The layer of the step in which this is called."""
        step, last = inner_step(), len(self) - 1
        return cast(BatchNorm, self[last if step is None else min(step, last)])

    def forward(self, x: Tensor) -> Tensor:
        return self.current(x)


def per_step(net: nn.Module, steps: int) -> nn.Module:
    """The same net with a copy of each of its `BatchNorm` for each inner step, in place.

    A learner that descends says in which step it calls the net; queries are for the last step's layer. The
    running averages of each are of the support sets in its step, of the last one after the inner loop. MAML++
    leaves scales and shifts to the outer loop: `inner_params="filters"`.

    Args:
        net: any module.
        steps: S, as many as the learner takes in meta-training.

    Raises:
        UserError: no step, no `BatchNorm`, or a net that has them for each step already.

    >>> per_step(nn.Sequential(nn.Linear(3, 4), BatchNorm(4)), steps=2)[1]
    PerStep(
      (0-1): 2 x BatchNorm()
    )
    """
    if steps < 1:
        raise UserError(f"steps must be at least 1, not {steps}")
    layers = list(net.modules())
    if any(isinstance(layer, PerStep) for layer in layers):
        raise UserError(f"{type(net).__name__} has batch normalisation for each step already")
    if not any(isinstance(layer, BatchNorm) for layer in layers):
        raise UserError(
            f"{type(net).__name__} has no BatchNorm: make it with norm='support', 'batch' or 'running', or "
            "call quickstudy.nets.convert_batch_norm(net) first"
        )

    def for_each(layer: nn.Module) -> nn.Module:
        if not isinstance(layer, BatchNorm):
            return layer
        return PerStep(copy.deepcopy(layer) for _ in range(steps)).train(layer.training)

    return replaced(net, for_each)

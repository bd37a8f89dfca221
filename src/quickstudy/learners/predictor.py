"""`Predictor`: what adapting returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from quickstudy.errors import DataError
from quickstudy.nets.norm import Moments
from quickstudy.tasks.task import as_input


@dataclass(frozen=True, eq=False)
class Predictor:
    """What a learner made of a support set: a function of inputs that never changes; threads take turns.

    Args:
        function: `[q, …]` inputs → `[q, way]` logits, or for regression values `[q, D]`, or with `spread`
            their mean and log standard deviation `[q, 2D]`.
        way: number of classes; None for regression.
        transductive: whether a prediction depends on the other inputs of the same call.
        losses: the support loss before each inner step, for learners that descend.
        moments: the support set's statistics, layer by layer.
        spread: whether it answers a regression by a normal distribution: mean, then log standard deviation.
        bare: of a predictor that `adapt` returned, its function without the checks around it, for export.
    """

    function: Callable[[Tensor], Tensor]
    way: int | None
    transductive: bool = False
    losses: tuple[Tensor, ...] = ()
    moments: Moments = field(default_factory=Moments, repr=False)
    spread: bool = False
    bare: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    def __call__(self, x: object) -> Tensor:
        """Logits `[q, way]` (or values) of inputs `[q, …]`: tensor, array or list, of any type of number.

        Raises:
            DataError: no numbers; and of a predictor that `adapt` returned, NaN, or other shapes than the
                examples it learned from.

        >>> Predictor(lambda x: x.flatten(1), way=2)(np.array([[[0, 255]]], dtype=np.uint8))
        tensor([[0., 1.]])
        """
        return self.function(as_input(x))

    def probabilities(self, x: object) -> Tensor:
        """Class probabilities `[q, way]` of inputs `[q, …]`.

        Raises:
            DataError: it predicts values, not classes.

        >>> Predictor(lambda x: x, way=2).probabilities([[0.0, 0.0]])
        tensor([[0.5000, 0.5000]])
        """
        if self.way is None:
            raise DataError("a regression has no class probabilities: call the predictor for its values")
        with torch.no_grad():
            return self(x).softmax(-1)

    def gaussian(self, x: object) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation `[q, D]` of the values at inputs `[q, …]`.

        Raises:
            DataError: it predicts classes, or values without saying how sure it is.

        >>> mean, std = Predictor(lambda x: x, way=None, spread=True).gaussian([[3.0, 0.0]])
        >>> mean.item(), std.item()
        (3.0, 1.0)
        """
        if self.way is not None:
            raise DataError("this predictor answers classes: probabilities(x) says how sure it is")
        if not self.spread:
            raise DataError("this predictor has no standard deviations: cnp, anp and transformer give them")
        with torch.no_grad():
            mean, log_std = self(x).chunk(2, -1)
            return mean, log_std.exp()

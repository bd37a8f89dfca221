"""Multimodal MAML: Vuorio, Sun, Hu, Lim 2018, arXiv 1812.07172, and 2019, arXiv 1910.13616.

ω = (θ, an encoder h, its features φ). Tasks of many kinds have no one initialisation near all of them: what
kind a task is of is read off its support set, and the initialisation modulated before the inner loop,

    (γ, β) = h({φ(xᵢ), yᵢ}),   θ'₀ = θ with each layer's outputs (1 + γ) ⊙ z + β,   then as MAML.

The authors read a regression's support set by a recurrent net; here it is a set, whose order does not matter.
The inner loop moves the modulated weights, theirs those beneath the modulation. And γ is a tanh: from weights
that may be scaled by anything some task's descent leaves all bounds sooner or later (the authors clip inner
gradients instead).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.inner.rules import Params
from quickstudy.learners.calling import call, width
from quickstudy.learners.maml import MAML
from quickstudy.learners.targets import label_rows
from quickstudy.nets.film import film_layers, filmed
from quickstudy.nets.task_encoder import TaskEncoder
from quickstudy.tasks.task import Support


class MMAML(MAML):
    """MMAML: MAML from an initialisation that a task encoder modulates (FiLM).

    Args:
        body: any module with a `features` attribute, and normalisation, linear layers or convolutions to
            modulate; the encoder's features come of a copy, learned for itself.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner, x = MMAML(mlp(1), way=1, inner_lr=0.01), torch.rand(10, 1)
        >>> learner.adapt(x, x.square())(x).shape
        torch.Size([10, 1])
    """

    def __init__(self, body: nn.Module, *, way: int, **maml: Any) -> None:
        super().__init__(body, way=way, **maml)
        self.reader = copy.deepcopy(body)
        self.encoder = TaskEncoder(width(body), way, outputs=2 * sum(film_layers(body).values()))

    def start(self, support: Support) -> Params:
        # Found anew: `per_step` may have put other layers in the place of those it was made with.
        layers = {f"body.{k}".rstrip("."): channels for k, channels in film_layers(self.net.body).items()}
        return filmed(super().start(support), layers, self.film(support))

    def film(self, support: Support) -> Tensor:
        """γ and β of all layers `[2 · channels]` for this task."""
        z = call(self.reader, self.weights(self.reader), support.x, self.set_moments())
        gamma, beta = self.held(self.encoder)(z, label_rows(support, self.way, z.dtype)).chunk(2)
        return torch.cat([gamma.tanh(), beta])

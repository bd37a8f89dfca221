"""Nearest centroid on the features of an untrained net: the floor that shows what the architecture gives."""

from __future__ import annotations

from torch import nn

from quickstudy.learners.protonet import ProtoNet


class Untrained(ProtoNet):
    """Prototypes in a randomly initialised embedding.

    Args:
        body: the embedding, as initialised.
    """

    trains_on = "nothing"

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body)

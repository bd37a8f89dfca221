"""A body modulated for the task: FiLM layers, Perez et al. 2018, arXiv 1709.07871, as CNAPs (Requeima et al.
2019, arXiv 1906.07697) write them from the support set.

A set encoder sums the support set up, a net g turns the sum into a scale and a shift of each channel, and the
body so modulated embeds support set and queries for prototypes:

    s = 1/n Σ f(xᵢ),   (γ, β) = g(s),   h ← (1 + γ) ⊙ h + β in every layer of f.

CNAPs encode the set by a net of its own and write the classifier too; here the set encoder is the body
itself, not modulated, always normalised by the set it encodes. g ends in zeros: it begins as ProtoNet. No
descent follows on it, so that γ needs no bound, as MMAML's does.
"""

from __future__ import annotations

from torch import nn

from quickstudy.inner.rules import Params
from quickstudy.learners.calling import call, width
from quickstudy.learners.protonet import ProtoNet
from quickstudy.nets.film import film_layers, filmed
from quickstudy.nets.mlp import perceptron
from quickstudy.options import at_least_one
from quickstudy.tasks.task import Support


class FiLM(ProtoNet):
    """FiLM: the support set modulates every layer of a shared body, then prototypes; any way, any shot.

    Args:
        body: the embedding; with normalisation, linear layers or convolutions to modulate.
        hidden: units of a layer of the net that writes scales and shifts.

    Example:
        >>> from quickstudy.nets import mlp
        >>> x, y = torch.rand(7, 2), torch.arange(7)
        >>> FiLM(mlp(2)).adapt(x, y)(x).shape
        torch.Size([7, 7])
    """

    def __init__(self, body: nn.Module, *, hidden: int = 64) -> None:
        super().__init__(body)
        at_least_one(hidden=hidden)
        self.hidden, self.layers = hidden, film_layers(body)
        self.generator = perceptron(width(body), hidden, 2 * sum(self.layers.values()), zeros=True)

    def body_weights(self, support: Support) -> Params:
        weights = self.weights(self.body)
        s = call(self.body, weights, support.x, self.set_moments()).mean(0, keepdim=True)  # [1, D]
        return filmed(weights, self.layers, self.held(self.generator)(s)[0])

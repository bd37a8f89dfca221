"""Attentive neural processes: Kim et al. 2019, arXiv 1901.05761.

A query attends to the representations of the examples near it, where a CNP takes their mean, and a latent
variable u holds what is common to all queries of a task:

    rᵢ = h(xᵢ, yᵢ),   r(x) = attention(x; xᵢ, rᵢ),   s = 1/n Σ h'(xᵢ, yᵢ),   q(u|S) = N(μ(s), σ(s)²),

    answer = g(x, r(x), u).

It is trained by the evidence lower bound, E[log p(y|x, r, u)] − KL(q(u|support and query set) ‖ q(u|support
set)), with one u a task, as the paper and the benchmarks since (Nguyen and Grover 2022, arXiv 2207.04179)
train it. In use u is the mean of q(u|support set), so that a predictor is a function. Here a class label is
a row of 0 and 1, the likelihood is that of the query set (the authors' is of the support set's too), and x
goes through the body, whose features, mapped and normalised, are keys and queries, and the encoders have none
of the self-attention that the authors add for images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from quickstudy.inner.outcome import Outcome
from quickstudy.learners.amortised import AmortisedLearner, Pairs
from quickstudy.learners.calling import width
from quickstudy.learners.targets import counts
from quickstudy.nets.attention import Attention
from quickstudy.nets.mlp import perceptron
from quickstudy.options import at_least_one
from quickstudy.tasks.task import Support, Task


class ANP(AmortisedLearner):
    """Attentive neural process: each query attends to the examples; any shot.

    Args:
        body: the embedding of inputs, pictures or points.
        way: classes it answers at most, or values of a regression.
        hidden: units of a layer of h, h' and g, and numbers of a representation.
        heads: of the attention; a divisor of hidden.
        latent: numbers of u.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner = ANP(mlp(1), way=1, hidden=16, heads=4)
        >>> learner.adapt([[0.0], [1.0]], [0.5, 1.5]).gaussian([[0.3]])[0].shape
        torch.Size([1, 1])
    """

    def __init__(
        self, body: nn.Module, *, way: int, hidden: int = 128, heads: int = 8, latent: int = 64
    ) -> None:
        at_least_one(way=way, hidden=hidden, heads=heads, latent=latent)
        super().__init__(body, way)
        self.way, self.hidden, self.heads, self.latent = way, hidden, heads, latent
        features = width(body)
        self.encoder = Pairs(features, way, hidden)
        self.place = nn.Sequential(nn.Linear(features, hidden), nn.LayerNorm(hidden))
        self.attention = Attention(hidden, heads)
        self.latent_encoder = Pairs(features, way, hidden)
        self.latent_head = nn.Linear(hidden, 2 * latent)
        self.decoder = perceptron(features + hidden + latent, hidden, 2 * way)

    def answers(self, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        return self.answers_given(self.latents(z, self.rows(support, z))[0], z, support)

    def answers_given(self, u: Tensor, z: Tensor, support: Support) -> Callable[[Tensor], Tensor]:
        """As `answers`, given u `[latent]`."""
        representations = self.held(self.encoder)(z, self.rows(support, z))  # [n, R]
        place, attend, decode = self.held(self.place), self.held(self.attention), self.held(self.decoder)
        keys, each = place(z), counts(support.y, z.dtype)  # [n, R], [n]

        def answer(q: Tensor) -> Tensor:
            r = attend(place(q), keys, representations, False, each)  # [q, R]
            return self.answer_in(decode(torch.cat([q, r, u.expand(q.shape[0], -1)], -1)), support)

        return answer

    def latents(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ `[latent]` of q(u|S), for examples of features `[n, D]` and labels' rows `[n, W]`."""
        s = self.held(self.latent_encoder)(z, y).mean(0, keepdim=True)
        mean, raw = self.held(self.latent_head)(s)[0].chunk(2)
        return mean, 0.1 + 0.9 * raw.sigmoid()  # the paper's own range

    def forward(self, task: Task) -> Outcome:
        """Minus the evidence lower bound, in nats a query."""
        support, query = task.support, task.query
        z, embed, moments = self.embedded(support)
        q = embed(query.x)
        y = self.rows(support, z), self.rows(replace(support, x=query.x, y=query.y), z)
        prior, posterior = self.latents(z, y[0]), self.latents(torch.cat([z, q]), torch.cat(y))
        u = posterior[0] + posterior[1] * task.extra["noise"]
        output = self.answers_given(u, z, support)(q)
        found, kl = self.scored(output, query.y, support.way is None), divergence(posterior, prior)
        # No other metrics: u was drawn knowing the queries' labels, so that they would flatter.
        bound = found.loss + kl / len(q)
        return Outcome(bound, {"bound": -bound, "kl": kl}, self.stats(moments))

    def prepare(self, batch: Task, generator: torch.Generator) -> Task:
        """Draw the noise of each task's u: `[T, latent]`."""
        x = batch.support.x
        noise = torch.randn(len(x), self.latent, generator=generator, dtype=x.dtype)
        return replace(batch, extra={**batch.extra, "noise": noise.to(x.device)})


def divergence(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
    """KL(p ‖ q) in nats, of normal distributions with independent coordinates, given as (mean, std) `[D]`.

    >>> divergence((torch.ones(3), torch.ones(3)), (torch.zeros(3), torch.ones(3)))
    tensor(1.5000)
    """
    (mean, std), (other, wide) = p, q
    ratio = (std / wide).square()
    return 0.5 * (ratio + ((mean - other) / wide).square() - 1 - ratio.log()).sum()

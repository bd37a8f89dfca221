"""What learners that descend share: a body and a linear head, whose weights a task's support loss moves."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.errors import UserError, unknown
from quickstudy.inner.problem import InnerProblem, Solution
from quickstudy.inner.rules import Params, Rule, sgd
from quickstudy.inner.solve import METHODS, Method, MethodName, solve
from quickstudy.learners.base import Learner, Outer
from quickstudy.learners.calling import as_stated, call, width
from quickstudy.learners.predictor import Predictor
from quickstudy.learners.targets import check_way, shares, task_loss
from quickstudy.nets.norm import NORMS, BatchNorm, Moments, Pair
from quickstudy.nets.per_step import PerStep
from quickstudy.options import at_least_one, at_least_zero
from quickstudy.tasks.task import Support

Which = str | Callable[[str], bool]
"""Names of parameters: a word of `PARTS`, a regular expression, or a function that says of a name whether."""
PARTS = {"all": "", "filters": "", "head": r"^head\.", "body": r"^body\."}


class DescentLearner(Learner):
    """Descends the support loss. A subclass says which net embeds, from which weights, and which move.

    Weights are named `body.…`, `head.weight` and `head.bias`.

    Args:
        inner_lr: the inner loop's rate.
        steps: S, inner steps in meta-training.
        test_steps: inner steps in use; by default as many as in meta-training.
        gradient: the way back through the inner loop, a name or, from Python, a method such as
            `inner.truncated(2)` or `inner.implicit(1.0)`; by default the class's `method`.
    """

    outer = Outer(meta_batch=16, outer_lr=3e-3, schedule="cosine", train_query=5)
    method: ClassVar[MethodName] = "unrolled"

    def __init__(
        self,
        *,
        inner_lr: float,
        steps: int,
        test_steps: int | None,
        gradient: MethodName | Method | None = None,
    ) -> None:
        super().__init__()
        at_least_zero(inner_lr=inner_lr)
        at_least_zero(whole=True, steps=steps, test_steps=test_steps)
        self.inner_lr, self.steps, self.test_steps = inner_lr, steps, test_steps
        if gradient is not None and not callable(gradient) and gradient not in METHODS:
            raise unknown("gradient", gradient, METHODS)
        self.gradient: MethodName | Method | None = gradient

    @property
    def steps_in_use(self) -> int:
        """Inner steps outside of meta-training."""
        return self.steps if self.test_steps is None else self.test_steps

    @property
    @abstractmethod
    def embedding(self) -> nn.Module:
        """The net whose weights are named `body.…`."""

    @abstractmethod
    def start(self, support: Support) -> Params:
        """The weights the inner loop starts from."""

    @abstractmethod
    def inner_names(self) -> set[str]:
        """The names of the weights that the inner loop moves."""

    def rule(self, params: Params) -> Rule:
        """The inner update rule for these parameters, of which a head of fewer ways has fewer rows."""
        return sgd(self.inner_lr)

    def support_loss(self, output: Tensor, y: Tensor, shares: Tensor | None = None) -> Tensor:
        """What the inner loop descends, as `loss` is what the outer one does; `shares` `[n]` say what each
        example counts."""
        return task_loss(output, y, shares)

    def embed(self, weights: Params, x: Tensor, moments: Moments) -> Tensor:
        """Features `[n, D]` of inputs `[n, …]`."""
        return embedded(self.embedding, weights, x, moments)

    def way_back(self) -> MethodName | Method:
        """How a meta-gradient goes back through the inner loop."""
        return self.gradient or self.method

    def descend(self, support: Support) -> tuple[Params, Solution, Moments]:
        """The weights after the inner loop, its course, and the support set's moments under these weights."""
        loop = Descent(self, support)
        solution = solve(loop.problem(), self.way_back())
        return loop.weights(solution.params), solution, loop.moments(solution.params)

    def learn(self, support: Support) -> Predictor:
        weights, solution, moments = self.descend(support)
        return self.predictor(support, weights, moments, solution.losses)

    def predictor(
        self, support: Support, weights: Params, moments: Moments, losses: tuple[Tensor, ...] = ()
    ) -> Predictor:
        """What these weights, and the support set's moments under them, make of queries."""
        net, for_query = self.embedding, self.query_moments(moments)

        def predict(x: Tensor) -> Tensor:
            return headed(weights, embedded(net, weights, x, for_query))

        return Predictor(predict, support.way, self.transductive, losses, moments)

    def numbers_of_steps(self, *others: int) -> list[dict[str, Any]]:
        """The candidates of a learner that finds its rates itself: its own number of steps, and others."""
        return [{"test_steps": n} for n in dict.fromkeys((self.test_steps, *others))]

    def candidates(self) -> list[dict[str, Any]]:
        """As it is and twice as long (at least five steps), each at the same, half and double the rate."""
        rates = (self.inner_lr, self.inner_lr / 2, self.inner_lr * 2)
        numbers = (self.test_steps, max(5, 2 * self.steps_in_use))
        return [{"test_steps": n, "inner_lr": rate} for n in numbers for rate in rates]


class Descent:
    """A task's inner loop: what moves, the support loss, and the support set's moments on the way.

    Args:
        learner: says where to start, which weights move and by which rule.
        support: whose loss is descended.
    """

    def __init__(self, learner: DescentLearner, support: Support) -> None:
        start, inner = learner.start(support), learner.inner_names()
        self.learner, self.support = learner, support
        self.params = {k: v for k, v in start.items() if k in inner}
        self.fixed = {k: v for k, v in start.items() if k not in inner}
        self.seen: dict[BatchNorm, list[Pair]] = {}  # by each layer when the loop last used it
        head_only = all(k.startswith("head.") for k in self.params)
        self.once = head_only and not any(isinstance(m, PerStep) for m in learner.embedding.modules())
        self.shared = learner.support_moments()  # of the features, where they are the same in all steps
        self.features = learner.embed(self.fixed, support.x, self.shared) if self.once else None
        self.shares = shares(support.y, next(iter(self.params.values())).dtype)

    def weights(self, params: Params) -> Params:
        """All weights of the net, with these for those that move."""
        return {**self.fixed, **params}

    def problem(self) -> InnerProblem:
        """The inner problem, of as many steps as the learner takes in meta-training, or in use."""
        learner = self.learner
        steps = learner.steps if learner.training else learner.steps_in_use
        return InnerProblem(self.params, self.loss, learner.rule(self.params), steps)

    def loss(self, params: Params, step: int) -> Tensor:
        """The support loss in an inner step, in which classes count alike: by the mean over examples a few
        steps would learn mostly which class has most of them."""
        weights, z = self.weights(params), self.features
        if z is None:
            here = self.learner.support_moments(kept=False, step=step)
            z = self.learner.embed(weights, self.support.x, here)
            self.seen.update(here.seen)
        return self.learner.support_loss(headed(weights, z), self.support.y, self.shares)

    def moments(self, params: Params, step: int | None = None) -> Moments:
        """The support set's moments under these parameters, in an inner step or after the last, for queries.

        Those of layers that are only used in other steps are as these steps left them.
        """
        learner = self.learner
        moments = self.shared if self.once else learner.support_moments(step=step)
        for_query = learner.statistics == "support"
        if not self.once and learner.norms() and (for_query or learner.training):
            # Only where queries are normalised by these moments is a graph of them of use.
            with torch.set_grad_enabled(torch.is_grad_enabled() and for_query):
                learner.embed(self.weights(params), self.support.x, moments)
            moments.seen = {**self.seen, **moments.seen}
        return moments


class Net(nn.Module):
    """A body and a linear head: `[n, …]` → `[n, way]`."""

    def __init__(self, body: nn.Module, way: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width(body), way)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(as_stated(self.body, self.body(x)))


class HeadLearner(DescentLearner):
    """Descends from a learned body and a learned head of fixed size.

    Args:
        body: any module with a `features` attribute: input → `[n, features]`.
        way: classes the head answers, or output dimensions of a regression.
        inner_params: what the inner loop moves: "all", "head", "body", "filters" (all but normalisation
            scales and shifts), a regular expression, searched for anywhere in names such as
            body.0.conv.weight and head.bias, or a function of such a name that says whether it moves; never
            what needs no gradient.
    """

    def __init__(self, body: nn.Module, *, way: int, inner_params: Which = "all", **descent: Any) -> None:
        super().__init__(**descent)
        at_least_one(way=way)
        self.net = Net(self.accept(body), way)
        self.way, self.inner_params = way, inner_params
        self.inner_names()  # there are some

    @property
    def embedding(self) -> nn.Module:
        return self.net.body

    def inner_names(self) -> set[str]:
        return matching(self.net, self.inner_params)

    def start(self, support: Support) -> Params:
        weights, way = self.weights(self.net), support.way
        if way is None:
            return weights
        check_way(way, self.way)
        return {k: v[:way] if k.startswith("head.") else v for k, v in weights.items()}


def embedded(net: nn.Module, weights: Params, x: Tensor, moments: Moments) -> Tensor:
    """Features `[n, D]` by a net whose weights are named `body.…` among these."""
    body = {k.removeprefix("body."): v for k, v in weights.items() if k.startswith("body.")}
    return call(net, body, x, moments)


def headed(weights: Params, z: Tensor) -> Tensor:
    """The linear head's outputs `[n, N]` for features `[n, D]`."""
    return F.linear(z, weights["head.weight"], weights["head.bias"])


def matching(net: nn.Module, inner_params: Which) -> set[str]:
    """The names of a net's trainable parameters that `inner_params` means; see `HeadLearner`.

    >>> from quickstudy.nets import mlp
    >>> sorted(matching(Net(mlp(1), way=2), "head"))
    ['head.bias', 'head.weight']
    >>> sorted(matching(Net(mlp(1), way=2), lambda name: name.endswith("bias")))
    ['body.1.bias', 'body.3.bias', 'head.bias']
    """
    moves = chosen_by(inner_params)
    names = {p: k for k, p in reversed(list(net.named_parameters()))}  # tied weights go by their first name
    every = net.named_parameters(remove_duplicate=False)
    found = {names[p] for k, p in every if p.requires_grad and moves(k)}
    if inner_params == "filters":
        norms = ((name, module) for name, module in net.named_modules() if isinstance(module, NORMS))
        found -= {f"{name}.{k}" for name, module in norms for k, _ in module.named_parameters()}
    if not found:
        raise UserError(
            f"no trainable parameter is named by inner_params={inner_params!r}, which may be "
            f"{', '.join(PARTS)}, or part of a name such as body.0.conv.weight"
        )
    return found


def chosen_by(inner_params: Which) -> Callable[[str], object]:
    """Whether a name is meant, as a function of the name."""
    if not isinstance(inner_params, str):
        if not callable(inner_params):
            raise UserError(
                f"inner_params must be a word, a pattern or a function of names, not {inner_params!r}"
            )
        return inner_params
    try:
        return re.compile(PARTS.get(inner_params, inner_params)).search
    except re.error as error:
        raise UserError(
            f"inner_params={inner_params!r} is no regular expression ({error}): one is "
            "searched for anywhere in names such as body.0.conv.weight, so .weight is enough"
        ) from error


def zeros_head(weights: Params) -> Params:
    """The same weights with a head that answers nothing yet."""
    return {k: torch.zeros_like(v) if k.startswith("head.") else v for k, v in weights.items()}

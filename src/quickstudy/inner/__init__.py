"""Inside one task: update rules, the inner loop and the ways back through it, mapping over tasks."""

from quickstudy.inner.chain import chain, clip_by_norm, clip_by_value, weight_decay
from quickstudy.inner.choice import Strategy
from quickstudy.inner.estimate import estimate
from quickstudy.inner.flat import flat
from quickstudy.inner.gradient import gradient
from quickstudy.inner.implicit import conjugate_gradient, implicit, neumann
from quickstudy.inner.mapping import map_tasks
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.precision import Precision, computing_in
from quickstudy.inner.problem import InnerProblem, Solution
from quickstudy.inner.rules import Rule, adam, momentum, scheduled, sgd
from quickstudy.inner.schedules import by_step, cosine, linear
from quickstudy.inner.solve import METHODS, Method, solve
from quickstudy.inner.truncated import first_order, truncated
from quickstudy.inner.unrolled import trajectory, unrolled

__all__ = [
    "METHODS",
    "InnerProblem",
    "Method",
    "Outcome",
    "Precision",
    "Rule",
    "Solution",
    "Strategy",
    "adam",
    "by_step",
    "chain",
    "clip_by_norm",
    "clip_by_value",
    "computing_in",
    "conjugate_gradient",
    "cosine",
    "estimate",
    "first_order",
    "flat",
    "gradient",
    "implicit",
    "linear",
    "map_tasks",
    "momentum",
    "neumann",
    "scheduled",
    "sgd",
    "solve",
    "trajectory",
    "truncated",
    "unrolled",
    "weight_decay",
]

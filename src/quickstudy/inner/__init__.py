"""Inside one task: update rules, the inner loop and the ways back through it, mapping over tasks."""

from quickstudy.inner.choice import Strategy
from quickstudy.inner.estimate import estimate
from quickstudy.inner.flat import flat
from quickstudy.inner.gradient import gradient, vectorised
from quickstudy.inner.implicit import conjugate_gradient, implicit, neumann
from quickstudy.inner.mapping import map_tasks
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.problem import InnerProblem, Solution
from quickstudy.inner.rules import Rule, adam, momentum, sgd
from quickstudy.inner.solve import METHODS, Method, solve
from quickstudy.inner.truncated import first_order, truncated
from quickstudy.inner.unrolled import unrolled

__all__ = [
    "METHODS",
    "InnerProblem",
    "Method",
    "Outcome",
    "Rule",
    "Solution",
    "Strategy",
    "adam",
    "conjugate_gradient",
    "estimate",
    "first_order",
    "flat",
    "gradient",
    "implicit",
    "map_tasks",
    "momentum",
    "neumann",
    "sgd",
    "solve",
    "truncated",
    "unrolled",
    "vectorised",
]

"""Inside one task: update rules, the unrolled inner loop, meta-gradients, mapping over tasks."""

from quickstudy.inner.gradient import gradient, vectorised
from quickstudy.inner.mapping import Strategy, map_tasks
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.rules import Rule, adam, momentum, sgd
from quickstudy.inner.solve import InnerProblem, Solution, solve
from quickstudy.inner.unrolled import estimate

__all__ = [
    "InnerProblem",
    "Outcome",
    "Rule",
    "Solution",
    "Strategy",
    "adam",
    "estimate",
    "gradient",
    "map_tasks",
    "momentum",
    "sgd",
    "solve",
    "vectorised",
]

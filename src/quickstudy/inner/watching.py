"""An inner problem that is watched as it is solved, and what it then stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.closure import Earlier, Replaced, Watched, tensors
from quickstudy.inner.problem import InnerProblem
from quickstudy.inner.rules import Params, Rule


def watched(problem: InnerProblem, used: dict[int, Tensor], earlier: Earlier | None = None) -> InnerProblem:
    """The same problem; what its loss and its rule use besides parameters and state is noted in `used`.

    Raises:
        UserError: while it is solved, one of them uses what it was given or made in an earlier step.
    """
    before = Earlier() if earlier is None else earlier
    return _under(problem, lambda given: Watched(given, used, before))


def with_stand_ins(
    problem: InnerProblem, used: dict[int, Tensor], stand_ins: Sequence[Tensor]
) -> InnerProblem:
    """The same problem, its loss and its rule using other tensors instead of those in `used`."""
    instead = dict(zip(used, stand_ins, strict=True))
    return _under(problem, lambda given: Replaced(instead))


def check_known(value: Tensor, inputs: Sequence[Tensor]) -> None:
    """Refuse what was made of other tensors than those it is differentiated by.

    Args:
        value: computed with stand-ins for all that was noted.
        inputs: the stand-ins.

    Raises:
        UserError: it stands on something that was not noted.
    """
    known = {id(v) for v in inputs}
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            raise UserError(
                "this way back cannot see how the support loss uses a tensor of shape "
                f"{tuple(variable.shape)}: it goes into a torch.autograd.Function; use the unrolled gradient"
            )
        nodes += [following for following, _ in node.next_functions]


def _under(
    problem: InnerProblem, mode: Callable[[Iterable[Any]], AbstractContextManager[Any]]
) -> InnerProblem:
    """The same problem, its loss and its rule running within `mode(their arguments)`."""

    def loss(params: Params, step: int) -> Tensor:
        with mode(params.values()):
            return problem.loss(params, step)

    def update(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
        with mode(tensors((grads, state, params))):
            return problem.rule.update(grads, state, params)

    return replace(problem, loss=loss, rule=Rule(problem.rule.init, update))

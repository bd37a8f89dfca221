"""The inner loop in flat memory: only the parameters of each step are kept, and on the way back each step is
made again, with one vector-Hessian product.

The idea of MixFlow-MG (Kemaev et al. 2025, arXiv 2505.00793): a step θₛ₊₁ = Φ(θₛ, φ) has a graph only while
it is gone back through, āₛ = (∂Φ/∂θ)ᵀ āₛ₊₁ and φ̄ = Σₛ (∂Φ/∂φ)ᵀ āₛ₊₁. φ is all that the support loss and the
rule use besides parameters and state: weights that are not adapted, rates, features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.inner.adjoint import Dims, attached
from quickstudy.inner.below import below, inside_map
from quickstudy.inner.closure import Earlier
from quickstudy.inner.leaves import Form, put_together, taken_apart
from quickstudy.inner.memory import held_by_graphs
from quickstudy.inner.precision import precision_now
from quickstudy.inner.problem import InnerProblem, Solution, steps_apart, take_step
from quickstudy.inner.rules import Params
from quickstudy.inner.unrolled import unrolled
from quickstudy.inner.watching import check_known, watched, with_stand_ins
from quickstudy.options import at_least_zero


@dataclass(frozen=True, eq=False)
class Course:
    """The way an inner loop went: its first steps, which can be made again.

    Args:
        problem: what was solved.
        devices: the GPUs that the parameters are on.
        used: φ, by `id`.
        forms: what parameters and state are besides their tensors, before each step.
        chance: torch's random states before each step that drew from them, of the CPU and of `devices`.
        losses: the support loss before each step.
        randomness: how a map draws.
    """

    problem: InnerProblem
    devices: tuple[torch.device, ...]
    used: dict[int, Tensor] = field(default_factory=dict)
    forms: list[Form] = field(default_factory=list)
    chance: list[list[Tensor] | None] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    randomness: str = field(default_factory=lambda: below().randomness)

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(self.losses)

    def step(self, noted: InnerProblem, params: Params, state: Any, create_graph: bool) -> tuple[Params, Any]:
        """Take the next step of the problem, which notes φ: parameters and state after it."""
        before = states(self.devices)
        self.forms.append(taken_apart((params, state))[1])
        loss, params, state = take_step(noted, params, state, self.steps, create_graph)
        drew = not all(map(torch.equal, before, states(self.devices)))
        self.chance.append(before if drew else None)
        self.losses.append(loss)
        return params, state


BUDGET = 11 * 2**21
"""Bytes that the graphs of the last steps may take: five of a task of 25 pictures in a small net."""


def flat(problem: InnerProblem, *, keep: int | None = None, budget: int = BUDGET) -> Solution:
    """Solve in flat memory; the meta-gradient is exactly that of the unrolled loop.

    Args:
        keep: the graphs of so many last steps are kept all the same, and so need not be made again; by
            default as many as fit into the budget, but two at least.
        budget: in bytes, for each task. What a step's graph holds is counted as the first step is taken.

    Raises:
        UserError: what is no whole number of at least 0; a loss or a rule that keeps tensors from step to
            step; and on the way back, one that hides what it uses in a `torch.autograd.Function`, or by
            which a step comes out otherwise when it is made again, as by chance that is not torch's.

    >>> from quickstudy.inner.rules import sgd
    >>> start = {"w": torch.tensor(4.0, requires_grad=True)}
    >>> end = flat(InnerProblem(start, lambda p, step: 0.5 * p["w"] ** 2, sgd(0.5), steps=3)).params["w"]
    >>> torch.autograd.grad(end, start["w"])
    (tensor(0.1250),)
    """
    at_least_zero(whole=True, keep=keep, budget=budget)
    if not torch.is_grad_enabled() or problem.steps <= (2 if keep is None else keep) or steps_apart():
        return unrolled(problem)
    devices = tuple({p.device for p in problem.params.values() if p.device.type == "cuda"})
    course, earlier = Course(problem, devices), Earlier()
    noted = watched(problem, course.used, earlier)
    params, state = problem.params, problem.rule.init(problem.params)
    start, form = taken_apart((params, state))
    earlier.leave_out(start)  # whoever uses it later uses what it is differentiated by
    if keep is None:
        tasks, chance = below(), states(devices)
        try:
            with tasks.outside_vmap():
                there = [tasks.unwrapped(v) for v in params.values()]
            with held_by_graphs(there) as held:
                params, state = course.step(noted, params, state, create_graph=True)
            with tasks.outside_vmap():
                used = [tasks.unwrapped(v) for v in course.used.values()]
            keep = max(2, tasks.count * budget // max(held.besides(used), 1))
        except (RuntimeError, UserError):  # torch.func.grad lets nobody count; and what fails fails once more
            course, keep = Course(problem, devices), 2
            noted = watched(problem, course.used, earlier)
            set_states(chance, devices)
    if problem.steps > keep:
        end, form = taken_apart((params, state))
        end = [v.detach() for v in end]  # without the graph of a step that was counted
        params, state = put_together(end, form)
        rows = Rows(problem.steps - keep)
        with torch.no_grad():
            if course.steps:
                rows.add(0, end)
            for step in range(course.steps, problem.steps - keep):
                params, state = course.step(noted, params, state, create_graph=False)
                end, form = taken_apart((params, state))
                rows.add(step, end)
        back = partial(go_back, course, len(start))
        found = attached(back, [*start, *course.used.values()], rows.tensors(), end)
        params, state = put_together(found, form)
        problem = watched(problem, {}, earlier)  # nothing of a step that was taken without a graph
    losses = list(course.losses)
    for step in range(course.steps, problem.steps):
        loss, params, state = take_step(problem, params, state, step, create_graph=True)
        losses.append(loss)
    return Solution(params, tuple(losses))


class Rows:
    """The tensors after each step, stacked: `[S, …]` of each.

    One block of memory for each, of all tasks of a map; many small ones would scatter the heap.
    """

    def __init__(self, count: int) -> None:
        self.count, self.tasks, self.at = count, below(), int(inside_map())
        self.blocks: list[Tensor] = []  # [T, S, …], or [S, …] where no map runs

    def add(self, i: int, tensors: Sequence[Tensor]) -> None:
        """The tensors after step i."""
        found = [self.tasks.unwrapped(v) for v in tensors]
        with self.tasks.outside_vmap():
            if not i:
                self.blocks = [rows_like(v, self.count).movedim(0, self.at) for v in found]
            if [b.shape[: self.at] + b.shape[self.at + 1 :] for b in self.blocks] != [v.shape for v in found]:
                raise UserError("flat memory is for rules whose state keeps its tensors and their shapes")
            for block, v in zip(self.blocks, found, strict=True):
                block.select(self.at, i).copy_(v)

    def tensors(self) -> list[Tensor]:
        """The blocks."""
        return [self.tasks.wrapped(block) for block in self.blocks]


def rows_like(v: Tensor, count: int) -> Tensor:
    """Memory for `[count, *v.shape]`, each row laid out as v is: what computes with it is then as fast, and
    rounds the same."""
    strides = v.numel(), *torch.empty_like(v, device="meta").stride()
    return torch.empty_strided((count, *v.shape), strides, dtype=v.dtype, device=v.device)


def go_back(
    course: Course,
    n: int,
    inputs: Sequence[Tensor],
    rows: Sequence[Tensor],
    wanted: Sequence[bool],
    adjoint: Sequence[Tensor],
    dims: tuple[Dims, Dims] | None,
) -> list[Tensor | None]:
    """The `WayBack` of a course: its inputs are the start, n tensors, and φ; `rows` are the tensors after
    each step."""
    start, used, wanted = inputs[:n], inputs[n:], wanted[n:]
    at = [v.detach() for v in adjoint]
    total = [torch.zeros_like(v) if w else None for v, w in zip(used, wanted, strict=True)]
    after: Sequence[Tensor] = row(rows, course.steps - 1, at, dims and dims[1])
    off = []
    for step in reversed(range(course.steps)):
        here = row(rows, step - 1, at, dims and dims[1]) if step else start
        shared = dims and ((0,) * len(here) if step else dims[0][:n], dims[0][n:])
        again, at, found = back(course, step, here, used, wanted, at, shared)
        off.append(apart(here, after, again))
        after = here
        for sum_, g in zip((v for v in total if v is not None), found, strict=True):
            sum_ += g
    check_same(torch.stack(off).max().item(), at[0])
    return [*at, *total]


def apart(before: Sequence[Tensor], after: Sequence[Tensor], again: Sequence[Tensor]) -> Tensor:
    """How far from where it led a step leads that is made again, as a share of how far it led; rounding, and
    steps that lead to no number, aside.

    >>> at, there, elsewhere = ([torch.tensor([v])] for v in (0.0, 0.0, 1.0))
    >>> float(apart(at, there, there)), float(apart(at, there, elsewhere))
    (0.0, inf)
    """
    here = before if len(before) == len(after) else [torch.zeros_like(v) for v in after]
    off = moved = torch.zeros((), device=after[0].device)
    for a, b, c in zip(here, after, again, strict=True):
        if b.is_floating_point():
            off = off + (torch.dist(b, c, 1) - 10 * torch.finfo(b.dtype).eps * b.norm(1)).to(off)
            moved = moved + torch.dist(a, b, 1).to(off)
    share = (off.clamp(min=0) / moved).nan_to_num(0.0, math.inf)  # 0 / 0: it led nowhere, twice
    return torch.where(off.isfinite() & moved.isfinite(), share, 0.0)


def check_same(off: float, like: Tensor) -> None:
    """Refuse steps that came out otherwise when they were made again, rounding aside.

    Args:
        off: by what share of a step.
        like: a parameter; nets may compute in bf16.
    """
    autocast = precision_now() == "bf16" or torch.is_autocast_enabled(like.device.type)
    close = 1e-6 if like.dtype == torch.float64 else 0.01
    if off > (0.1 if autocast or like.dtype.itemsize == 2 else close):
        by = f"{100 * off:.2g} % of it" if off < math.inf else "the first time it led nowhere"
        raise UserError(
            f"an inner step came out otherwise ({by}) when it was made again for the way "
            "back: the support loss or the rule draws by other means than torch's own generators, or uses "
            "what has changed; use the unrolled gradient"
        )


def row(rows: Sequence[Tensor], i: int, like: Sequence[Tensor], dims: Dims | None) -> list[Tensor]:
    """The tensors after step i; within a map each with the dimension of tasks that `like` has."""
    if dims is None:
        return [v[i] for v in rows]
    return [v[i].expand_as(a) if d is None else v[:, i] for v, d, a in zip(rows, dims, like, strict=True)]


def back(
    course: Course,
    step: int,
    here: Sequence[Tensor],
    used: Sequence[Tensor],
    wanted: Sequence[bool],
    adjoint: Sequence[Tensor],
    dims: tuple[Dims, Dims] | None,
) -> tuple[Sequence[Tensor], list[Tensor], list[Tensor]]:
    """The vector-Jacobian product of one step: what comes after it, adjoints of what it began with, and of
    those of φ wanted."""
    leaves = [v.detach().requires_grad_(v.is_floating_point()) for v in here]
    others = [v.detach().requires_grad_(w) for v, w in zip(used, wanted, strict=True)]

    def again(leaves: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Tensor, ...]:
        problem = with_stand_ins(course.problem, course.used, others)
        params, state = put_together(leaves, course.forms[step])
        _, params, state = take_step(problem, params, state, step, create_graph=True)
        return tuple(taken_apart((params, state))[0])

    with torch.enable_grad(), replayed(course.chance[step], course.devices):
        if dims:
            in_dims = tuple(map(list, dims))
            after = torch.func.vmap(again, in_dims, randomness=course.randomness)(leaves, others)
        else:
            after = again(leaves, others)
        reached = [(v, a) for v, a in zip(after, adjoint, strict=True) if v.requires_grad]
        # A number, as with adjoints of its own `torch.autograd.grad` loads sympy, 25 MB of it.
        value = torch.stack([(v * a).sum() for v, a in reached]).sum()
    inputs = [v for v in (*leaves, *others) if v.requires_grad]
    check_known(value, inputs)
    grads = iter(torch.autograd.grad(value, inputs, materialize_grads=True))
    at = [next(grads) if v.requires_grad else torch.zeros_like(v) for v in leaves]
    return [v.detach() for v in after], at, list(grads)


def states(devices: Sequence[torch.device]) -> list[Tensor]:
    """Torch's random states, of the CPU and of these GPUs."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in devices)]


def set_states(chance: Sequence[Tensor], devices: Sequence[torch.device]) -> None:
    """Let torch draw on from these random states."""
    torch.set_rng_state(chance[0])
    for device, state in zip(devices, chance[1:], strict=True):
        torch.cuda.set_rng_state(state, device)


@contextmanager
def replayed(chance: list[Tensor] | None, devices: Sequence[torch.device]) -> Iterator[None]:
    """Within this block torch draws what it drew from these states on; afterwards it goes on as before."""
    if chance is None:
        yield
        return
    with torch.random.fork_rng(devices=devices):
        set_states(chance, devices)
        yield

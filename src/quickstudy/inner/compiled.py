"""A meta-step compiled: an inner step, its way back, and what surrounds them, for all tasks at once.

The meta-step is traced into a graph in which each inner step is one operation, and its way back another. What
is alike of these is compiled once, however many steps there are. On the way back a step is made again from
the parameters before it, as in flat memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from quickstudy.errors import UserError
from quickstudy.inner.below import below, inside_map
from quickstudy.inner.functional import with_weights
from quickstudy.inner.leaves import put_together, taken_apart
from quickstudy.inner.mapping import map_tasks
from quickstudy.inner.memory import portions
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.precision import precision_now
from quickstudy.inner.problem import InnerProblem, take_step, taking_steps
from quickstudy.inner.programs import (
    CALL,
    Function,
    Program,
    TensorSpec,
    calling,
    check_available,
    compiled,
    digest,
    kept,
    traced,
)
from quickstudy.inner.rules import Params
from quickstudy.inner.settings import options, told_apart
from quickstudy.inner.twice import attention_by_math
from quickstudy.inner.watching import check_known, watched, with_stand_ins
from quickstudy.nets import native
from quickstudy.tasks.task import Task

Flatten = Callable[[Outcome], dict[str, Tensor]]
Found = tuple[dict[str, Tensor], tuple[Tensor, ...]]
"""Named tensors, and a gradient."""
CHANGES, KINDS = 4, 12
"""Compiled at most: meta-steps of one learner, as its options or the sizes of batches change; and steps of a
meta-step that are not alike."""
_made: WeakKeyDictionary[nn.Module, dict[object, MetaStep | None]] = WeakKeyDictionary()
_log = logging.getLogger("quickstudy")


def meta_step(learner: nn.Module, batch: Task, flatten: Flatten) -> Found | None:
    """What `flatten` makes of each task's outcome, `[T, …]`, and the gradient of the sum of all "loss" by the
    learner's parameters that need one; None where that cannot be compiled, which is said once.

    It is compiled when a learner with these options, and a batch of these sizes, first come.
    """
    known, key = _made.setdefault(learner, {}), key_of(learner, batch)
    if key not in known and len(known) <= CHANGES:
        try:
            if len(known) == CHANGES:
                raise UserError(f"{type(learner).__name__} changed {CHANGES} times since it was compiled")
            known[key] = MetaStep(learner, batch, flatten)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any kind: a tracer's, a compiler's, the disk's; by vmap it may do
            known[key] = None
            reason = str(error).partition("\n")[0] or type(error).__name__
            _log.warning("tasks are mapped by vmap, not compiled: %s", reason)
    made = known.get(key)
    return None if made is None else made(learner, batch)


def prepared(learner: nn.Module, batch: Task) -> bool:
    """Whether a meta-step of such tasks is compiled already."""
    return _made.get(learner, {}).get(key_of(learner, batch)) is not None


def key_of(learner: nn.Module, batch: Task) -> tuple[object, ...]:
    """All that a meta-step depends on, besides the numbers in its tensors."""
    return (
        batch.support.way,
        *((k, TensorSpec.of(v)) for k, v in batch.tensors().items()),
        *((k, TensorSpec.of(v), v.requires_grad) for k, v in state(learner).items()),
        *((type(m), name, k, told_apart(v)) for name, m in learner.named_modules() for k, v in options(m)),
        *(precision_now(), torch.get_default_dtype(), torch.get_num_threads()),
    )


class MetaStep:
    """A compiled meta-step, of such a learner and such tasks.

    Raises:
        UserError: there is no compiler here, the learner draws random numbers, too many inner steps are not
            alike, or the tasks need so much memory that they come in portions.
    """

    def __init__(self, learner: nn.Module, batch: Task, flatten: Flatten) -> None:
        check_available(batch.support.x.device)
        if len(list(portions(learner, batch))) > 1:
            raise UserError("so many tasks of this size do not fit into memory at once")
        weights, tensors, steps = state(learner), batch.tensors(), Steps()
        names: list[str] = []

        def function(inputs: Sequence[Tensor]) -> list[Tensor]:
            own = {
                f"learner.{k}": v.detach().requires_grad_(weights[k].requires_grad)
                for k, v in zip(weights, inputs, strict=False)
            }
            tasks = batch.with_tensors(dict(zip(tensors, inputs[len(own) :], strict=True)))
            found, grads = with_weights(Whole(learner, flatten, steps), own, [tasks])
            names[:] = found
            return [v.detach() for v in (*found.values(), *grads)]

        inputs = [TensorSpec.of(v) for v in (*weights.values(), *tensors.values())]
        with kept():
            with native.allowing(False), attention_by_math(), taking_steps(steps.take):
                graph = traced(function, [spec.example() for spec in inputs])
            self.names, self.programs = names, steps.compiled(graph)
            self.run = compiled(graph, inputs)

    def __call__(self, learner: nn.Module, batch: Task) -> Found:
        inputs = (*state(learner).values(), *batch.tensors().values())
        with torch.no_grad():
            found = self.run(*(v.detach().contiguous() for v in inputs))
        count = len(self.names)
        return dict(zip(self.names, found[:count], strict=True)), tuple(found[count:])


class Whole(nn.Module):
    """A meta-step: there, each inner step of its own, and back, all with the weights it is called with."""

    def __init__(self, learner: nn.Module, flatten: Flatten, steps: Steps) -> None:
        super().__init__()
        self.learner, self.flatten, self.steps = learner, flatten, steps

    def forward(self, tasks: Task) -> Found:
        found = map_tasks(lambda learner, task: self.flatten(learner(task)), self.learner, tasks, "vmap")
        with taking_steps(None):
            self.steps.trace()
        trained = [p for p in self.learner.parameters() if p.requires_grad]
        return found, torch.autograd.grad(found["loss"].sum(), trained, materialize_grads=True)


def state(learner: nn.Module) -> dict[str, Tensor]:
    """A learner's parameters and buffers."""
    return {**dict(learner.named_parameters()), **dict(learner.named_buffers())}


class Steps:
    """The inner steps that a trace comes to, each a program there, and one back."""

    def __init__(self) -> None:
        self.functions: dict[Program, tuple[Function, list[TensorSpec]]] = {}
        self.graphs: dict[int, tuple[Program, torch.fx.GraphModule, list[TensorSpec]]] = {}

    def take(
        self, problem: InnerProblem, params: Params, state: Any, step: int, create_graph: bool
    ) -> tuple[Tensor, Params, Any]:
        """Take a step by its program, where a map over tasks runs this; as `take_step`."""
        used: dict[int, Tensor] = {}
        if not inside_map():
            with taking_steps(None):
                return take_step(problem, params, state, step, create_graph)
        with torch.no_grad(), taking_steps(None):  # to see what is used and made
            loss, *after = take_step(watched(problem, used), params, state, step, create_graph=False)
        (leaves, form), (made, form_after) = taken_apart((params, state)), taken_apart(tuple(after))
        tasks, own = below(), len(leaves)
        dims = tuple(
            0 if i < own or tasks.holds(v) else None for i, v in enumerate((*leaves, *used.values()))
        )

        def taken(tensors: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
            def one(*tensors: Tensor) -> tuple[Tensor, ...]:
                here, state = put_together(tensors[:own], form)
                stood_in = with_stand_ins(problem, used, tensors[own:])
                loss, *after = take_step(stood_in, here, state, step, create_graph)
                return loss, *taken_apart(tuple(after))[0]

            return torch.func.vmap(one, in_dims=dims, randomness="different")(*tensors)

        def there(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
            with torch.no_grad():
                return [v.contiguous() for v in taken(tensors, create_graph=False)]

        def back(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
            at = [v.detach().requires_grad_(w) for v, w in zip(tensors, wanted, strict=False)]
            zero = at[0].new_zeros((), requires_grad=True)  # where nothing that is asked for is reached
            with torch.enable_grad():
                _, *after = taken(at, create_graph)
                reached = zip(after, tensors[len(at) :], strict=True)
                value = sum(((v * a).sum() for v, a in reached if v.requires_grad), zero)
            asked = [v for v in at if v.requires_grad]
            check_known(value, [zero, *asked])
            grads = torch.autograd.grad(value, asked, materialize_grads=True)
            return [g.contiguous() for g in grads]

        with tasks.outside_vmap():
            beneath = [
                v if d is None else tasks.unwrapped(v)
                for v, d in zip((*leaves, *used.values()), dims, strict=True)
            ]
            results = [tasks.unwrapped(v) for v in (loss, *made)]
            wanted = [v.requires_grad for v in beneath]
            asked = [v for v in beneath if v.requires_grad]
            way = self.program(there, beneath, results)
            back_too = asked and torch.is_grad_enabled()
            way_back = self.program(back, [*beneath, *results[1:]], asked) if back_too else None
            found = _Step.apply(way, way_back, *beneath)
        loss, *made = map(tasks.wrapped, found)
        return loss, *put_together(made, form_after)

    def program(self, function: Function, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Program:
        """A function's program, to be traced and compiled."""
        program = Program([TensorSpec.of(v) for v in outputs])
        self.functions[program] = function, [TensorSpec.of(v) for v in inputs]
        return program

    def trace(self) -> None:
        """Trace what is not yet."""
        for program, (function, inputs) in self.functions.items():
            part = traced(function, [spec.example() for spec in inputs])
            self.graphs[program.number] = program, part, inputs
        self.functions.clear()

    def compiled(self, graph: torch.fx.GraphModule) -> list[Program]:
        """The programs that a graph calls, compiled; it then calls these."""
        calls: list[Any] = [node for node in graph.graph.nodes if node.target == CALL]
        numbers = {n: digest(*self.graphs[n][1:]) for n in dict.fromkeys(node.args[0] for node in calls)}
        kinds = dict(zip(numbers.values(), numbers, strict=True))
        if len(kinds) > KINDS:
            raise UserError(f"its inner steps are of {len(kinds)} kinds, which would take long to compile")
        programs = []
        for kind, number in kinds.items():
            program, part, inputs = self.graphs[number]
            programs.append(Program.known(kind) or Program(program.outputs, compiled(part, inputs), kind))
        for node in calls:
            node.args = (numbers[node.args[0]], *node.args[1:])
        graph.recompile()
        return programs


class _Step(torch.autograd.Function):
    """A step's program, and the one back through it; its loss is only told."""

    @staticmethod
    def forward(ctx: Any, way: Program, way_back: Program, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.way_back = way_back
        ctx.save_for_backward(*inputs)
        made = tuple(calling(way, inputs))
        ctx.mark_non_differentiable(made[0], *(v for v in made if not v.is_floating_point()))
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, *adjoint: Tensor) -> tuple[Tensor | None, ...]:
        found = iter(calling(ctx.way_back, [*ctx.saved_tensors, *adjoint]))
        return None, None, *(next(found) if w else None for w in ctx.needs_input_grad[2:])

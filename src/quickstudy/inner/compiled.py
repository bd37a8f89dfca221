"""A meta-step compiled: an inner step, its way back, and what surrounds them, for all tasks at once.

The meta-step is traced into a graph in which each inner step is one operation, and its way back another. As
all steps are alike, each is compiled once, however many steps there are. On the way back a step is made
again from the parameters before it, as in flat memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.inner.below import below, inside_map
from quickstudy.inner.flat import check_known
from quickstudy.inner.leaves import put_together, taken_apart
from quickstudy.inner.mapping import map_tasks
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.precision import precision_now
from quickstudy.inner.problem import InnerProblem, take_step, taking_steps
from quickstudy.inner.programs import (
    CannotCompile,
    Function,
    Program,
    Sort,
    check_available,
    compiled,
    traced,
)
from quickstudy.inner.rules import Params
from quickstudy.inner.watching import watched, with_stand_ins
from quickstudy.nets import native
from quickstudy.tasks.task import Task

Flatten = Callable[[Outcome], dict[str, Tensor]]
Found = tuple[dict[str, Tensor], tuple[Tensor, ...]]
"""Named tensors, and a gradient."""
_made: WeakKeyDictionary[nn.Module, dict[object, MetaStep | None]] = WeakKeyDictionary()
_log = logging.getLogger("quickstudy")


def meta_step(learner: nn.Module, batch: Task, flatten: Flatten) -> Found | None:
    """What `flatten` makes of each task's outcome, `[T, …]`, and the gradient of the sum of all "loss" by the
    learner's parameters that need one; None where it cannot be compiled here, which is said once.

    It is compiled when a learner with these options, and a batch of these sizes, first come.

    Raises:
        UserError: the learner does what vmap cannot, or draws random numbers.
    """
    known, key = _made.setdefault(learner, {}), circumstances(learner, batch)
    if key not in known:
        try:
            known[key] = MetaStep(learner, batch, flatten)
        except CannotCompile as error:
            known[key] = None
            _log.warning("%s: tasks are mapped by vmap, not compiled", error)
    made = known[key]
    return None if made is None else made(learner, batch)


def prepared(learner: nn.Module, batch: Task) -> bool:
    """Whether a meta-step of such tasks is compiled already."""
    return _made.get(learner, {}).get(circumstances(learner, batch)) is not None


def circumstances(learner: nn.Module, batch: Task) -> tuple[object, ...]:
    """What a meta-step depends on besides numbers: sizes, the options of learner and layers, and torch's."""
    sizes = tuple((k, Sort.of(v)) for k, v in batch.tensors().items())
    plain = (bool, int, float, str, tuple, type(None))
    options = (
        (name, k, repr(v))
        for name, module in learner.named_modules()
        for k, v in vars(module).items()
        if isinstance(v, plain)
    )
    return (sizes, batch.support.way, *options, precision_now(), torch.get_num_threads())


class MetaStep:
    """A compiled meta-step, of such a learner and such tasks."""

    def __init__(self, learner: nn.Module, batch: Task, flatten: Flatten) -> None:
        check_available(batch.support.x.device)
        weights, tensors, steps = state(learner), batch.tensors(), Steps()
        self.names: tuple[str, ...] = ()

        def function(inputs: Sequence[Tensor]) -> list[Tensor]:
            own = [
                v.detach().requires_grad_(w.requires_grad)
                for v, w in zip(inputs, weights.values(), strict=False)
            ]
            tasks = batch.with_tensors(dict(zip(tensors, inputs[len(own) :], strict=True)))
            given = {f"learner.{k}": v for k, v in zip(weights, own, strict=True)}
            whole = Whole(learner, flatten, steps)
            found = map_tasks(
                lambda whole, task: functional_call(whole, given, (task,)), whole, tasks, "vmap"
            )
            self.names = tuple(found)
            trained = [v for v in own if v.requires_grad]
            grads = torch.autograd.grad(found["loss"].sum(), trained, materialize_grads=True)
            return [v.detach() for v in (*found.values(), *grads)]

        examples = [Sort.of(v).example() for v in (*weights.values(), *tensors.values())]
        with native.allowing(False):
            with taking_steps(steps.take):
                graph = traced(function, examples)
            self.programs = steps.compiled(graph)
            self.run = compiled(graph, examples)

    def __call__(self, learner: nn.Module, batch: Task) -> Found:
        inputs = (*state(learner).values(), *batch.tensors().values())
        with torch.no_grad():
            found = self.run(*(v.detach().contiguous() for v in inputs))
        count = len(self.names)
        return dict(zip(self.names, found[:count], strict=True)), tuple(found[count:])


class Whole(nn.Module):
    """A learner, and the steps it comes to, which are traced while it has the weights it was called with."""

    def __init__(self, learner: nn.Module, flatten: Flatten, steps: Steps) -> None:
        super().__init__()
        self.learner, self.flatten, self.steps = learner, flatten, steps

    def forward(self, task: Task) -> dict[str, Tensor]:
        found = self.flatten(self.learner(task))
        with below().outside_vmap(), taking_steps(None):
            self.steps.trace()
        return found


def state(learner: nn.Module) -> dict[str, Tensor]:
    """A learner's parameters and buffers."""
    return {**dict(learner.named_parameters()), **dict(learner.named_buffers())}


class Steps:
    """The inner steps that a trace comes to, each a program there, and one back."""

    def __init__(self) -> None:
        self.functions: dict[Program, Function] = {}
        self.graphs: dict[Program, torch.fx.GraphModule] = {}

    def take(
        self, problem: InnerProblem, params: Params, state: Any, step: int, create_graph: bool
    ) -> tuple[Tensor, Params, Any]:
        """Take a step by its program, where a map over tasks runs this; as `take_step`."""
        used: dict[int, Tensor] = {}
        if not inside_map():
            with taking_steps(None):
                return take_step(problem, params, state, step, create_graph)
        with torch.no_grad(), taking_steps(None):  # to see what is used and made; nothing else stays of it
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
            with torch.enable_grad():
                _, *after = taken(at, create_graph)
                reached = zip(after, tensors[len(at) :], strict=True)
                value = torch.stack([(v * a).sum() for v, a in reached if v.requires_grad]).sum()
            asked = [v for v in at if v.requires_grad]
            check_known(value, asked)
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
            programs = (
                self.program(there, beneath, results),
                self.program(back, [*beneath, *results[1:]], asked),
            )
            found = _Step.apply(*programs, *beneath)
        loss, *made = map(tasks.wrapped, found)
        return loss, *put_together(made, form_after)

    def program(self, function: Function, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Program:
        """A function's program, to be traced and compiled."""
        program = Program(inputs, outputs)
        self.functions[program] = function
        return program

    def trace(self) -> None:
        """Trace what is not yet."""
        for program, function in self.functions.items():
            self.graphs[program] = traced(function, [sort.example() for sort in program.inputs])
        self.functions.clear()

    def compiled(self, graph: torch.fx.GraphModule) -> list[Program]:
        """The programs that are called in a graph, compiled, each kind once."""
        called = {node.args[0] for node in graph.graph.nodes if node.target == Program.operation}
        graphs = {program: part for program, part in self.graphs.items() if program.number in called}
        alike: dict[str, Callable[..., Sequence[Tensor]]] = {}
        for program, part in graphs.items():
            text = f"{part.code}{program.inputs}{constants(part)}"
            if text not in alike:
                alike[text] = compiled(part, [sort.example() for sort in program.inputs])
            program.run = alike[text]
        return list(graphs)


def constants(graph: torch.fx.GraphModule) -> list[object]:
    """The numbers that a graph holds."""
    names = [node.target for node in graph.graph.nodes if node.op == "get_attr"]
    return [getattr(graph, name).tolist() for name in names]


class _Step(torch.autograd.Function):
    """A step's program, and the one back through it; its loss is only told."""

    @staticmethod
    def forward(ctx: Any, there: Program, back: Program, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.back = back
        ctx.save_for_backward(*inputs)
        made = tuple(there(inputs))
        ctx.mark_non_differentiable(made[0], *(v for v in made if not v.is_floating_point()))
        return made

    @staticmethod
    def backward(ctx: Any, _: Tensor, *adjoint: Tensor) -> tuple[Tensor | None, ...]:
        found = iter(ctx.back([*ctx.saved_tensors, *adjoint]))
        return None, None, *(next(found) if w else None for w in ctx.needs_input_grad[2:])

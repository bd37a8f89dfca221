"""Meta-optimisers: torch's, by name or given, their schedules, and their state without pickle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from quickstudy.errors import UserError, unknown
from quickstudy.outer.hypergradient import HypergradientAdam, HypergradientSGD

MakeOptimizer = Callable[[Iterable[Tensor]], Optimizer]
MakeSchedule = Callable[[Optimizer], LRScheduler]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "adam-hd": HypergradientAdam,
    "sgd-hd": HypergradientSGD,
}
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: max(0.0, 1 - progress),
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * min(1.0, progress))),
    "halving": lambda progress: 0.5 ** int(min(progress, 0.999) * 5),
}


def make_optimizer(how: str | MakeOptimizer, params: Iterable[Tensor], lr: float) -> Optimizer:
    """An optimiser by name with rate `lr`, or the one that `how(params)` makes.

    Raises:
        UserError: no such name, LBFGS, or a rate that is a tensor.
    """
    if isinstance(how, Optimizer):
        raise UserError(
            "give a function that makes the optimizer: lambda params: torch.optim.SGD(params, lr=0.1)"
        )
    if callable(how):
        made = how(params)
        if isinstance(made, torch.optim.LBFGS):
            raise UserError(
                "LBFGS asks for the loss several times a step, but a meta-step has tasks of its own: "
                "choose another optimizer"
            )
        if any(
            isinstance(v, Tensor) for group in made.param_groups for k, v in group.items() if k != "params"
        ):
            raise UserError("an optimizer's rate is a number here, not a tensor: it is kept in a checkpoint")
        return made
    if how not in OPTIMIZERS:
        raise unknown("optimizer", how, OPTIMIZERS)
    return OPTIMIZERS[how](params, lr=lr)


def make_schedule(how: str | MakeSchedule, optimizer: Optimizer, iterations: int) -> LRScheduler:
    """A schedule by name over `iterations` meta-steps, or the one that `how(optimizer)` makes.

    Raises:
        UserError: no such name, or ReduceLROnPlateau.
    """
    if callable(how):
        made = how(optimizer)
        if isinstance(made, ReduceLROnPlateau):
            raise UserError(
                "ReduceLROnPlateau follows a loss, but a schedule is a function of the meta-step: "
                "choose another schedule"
            )
        return made
    if how not in SCHEDULES:
        raise unknown("schedule", how, SCHEDULES)
    factor = SCHEDULES[how]
    return LambdaLR(optimizer, lambda step: factor(step / max(1, iterations)))


def state_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors and a JSON value."""
    state = optimizer.state_dict()
    tensors: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            place = tensors if isinstance(value, Tensor) else plain
            place[f"{index}.{key}"] = value
    return tensors, {"plain": plain, "groups": state["param_groups"]}


def load_state(optimizer: Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
    """Give an optimiser back what `state_tensors` took."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**rest["plain"], **tensors}.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})

"""Hypergradient descent: Baydin, Cornish, Martínez Rubio, Schmidt, Wood 2018, arXiv 1703.04782.

The rate β of θₜ₊₁ = θₜ − β dₜ descends too. The loss after a step changes with it by −∇ₜ₊₁ · dₜ; made free of
scales, the paper's multiplicative rule is

    log β ← log β + κ cos(∇ₜ₊₁, dₜ):

it grows while steps point the way the next gradient points, and shrinks once they go too far.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Hypergradient(Optimizer):
    """An optimiser that adapts its rate; a subclass says in which direction a step goes.

    The rate is a group's `lr`, which is the schedule's to set, times its `factor`, which is adapted.

    Args:
        params: what to move.
        lr: β at the beginning.
        hyper_lr: κ.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, hyper_lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "hyper_lr": hyper_lr, "factor": 1.0})

    @abstractmethod
    def direction(self, grad: Tensor, state: dict[str, Any]) -> Tensor:
        """Where a step goes, of a parameter's gradient and state."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Adapt the rate by the step before, then step; returns the closure's loss, where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            group["factor"] *= math.exp(group["hyper_lr"] * self.cosine(params))
            for p in params:
                state = self.state[p]
                state["before"] = self.direction(p.grad, state)
                p.sub_(state["before"], alpha=group["lr"] * group["factor"])
        return loss

    def cosine(self, params: Iterable[Tensor]) -> float:
        """Of the angle between the gradient and the step before; 0 where there was none."""
        products = torch.zeros(3, dtype=torch.float64)
        for p in params:
            if p.grad is not None and "before" in self.state[p]:
                g, d = p.grad, self.state[p]["before"]
                products += torch.stack([(g * d).sum(), (g * g).sum(), (d * d).sum()]).cpu()
        product, g_square, d_square = products.tolist()
        return product / math.sqrt(g_square * d_square) if g_square * d_square > 0 else 0.0


class HypergradientSGD(Hypergradient):
    """SGD-HD: gradient descent that adapts its rate.

    >>> x = torch.tensor([8.0], requires_grad=True)
    >>> optimizer = HypergradientSGD([x], lr=0.001, hyper_lr=0.5)
    >>> for _ in range(20):
    ...     x.grad = 2 * x.detach()
    ...     optimizer.step()
    >>> bool(x.abs() < 0.1)  # with the rate it began at x would still be 7.7
    True
    """

    def direction(self, grad: Tensor, state: dict[str, Any]) -> Tensor:
        return grad.clone()


class HypergradientAdam(Hypergradient):
    """Adam-HD: Adam (Kingma and Ba 2015, 1412.6980) that adapts its rate."""

    def direction(self, grad: Tensor, state: dict[str, Any]) -> Tensor:
        b1, b2, eps = 0.9, 0.999, 1e-8
        if not state:
            state |= {"step": 0, "m": torch.zeros_like(grad), "v": torch.zeros_like(grad)}
        state["step"] += 1
        m, v = state["m"].lerp_(grad, 1 - b1), state["v"].lerp_(grad.square(), 1 - b2)
        return (m / (1 - b1 ** state["step"])) / ((v / (1 - b2 ** state["step"])).sqrt() + eps)

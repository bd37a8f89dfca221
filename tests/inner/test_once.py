"""What can be differentiated once only is told in one sentence, where it matters and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.errors import UserError
from quickstudy.inner import (
    InnerProblem,
    Method,
    estimate,
    first_order,
    flat,
    implicit,
    sgd,
    truncated,
    unrolled,
)
from quickstudy.inner.rules import Params
from quickstudy.learners import MAML
from quickstudy.tasks import Lines, Task

pytestmark = pytest.mark.usefixtures("float64")


def cube(*marks: Callable[..., Any]) -> Any:
    """x³ as a `Function` whose way back bears these marks."""

    class Cube(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x**3

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return 3 * ctx.saved_tensors[0] ** 2 * g

    for mark in marks:
        Cube.backward = staticmethod(mark(Cube.backward))
    return Cube.apply


def another(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Some other decorator above the mark, such as mixed precision's."""

    @wraps(backward)
    def wrapped(*args: Any) -> Any:
        return backward(*args)

    return wrapped


def solved(method: Method, loss: Callable[[Params], Tensor], mapped: bool, w: Tensor) -> Tensor:
    """The gradient by w of where two steps end."""

    def one(x: Tensor) -> Tensor:
        problem = InnerProblem({"w": w}, lambda p, step: loss(p) + (x * p["w"]).sum(), sgd(0.1), 2)
        return method(problem).params["w"].sum()

    x = torch.tensor([0.3, -0.2])
    value = torch.func.vmap(one)(x).sum() if mapped else one(x[0])
    return torch.autograd.grad(value, w)[0]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("marks", [(once_differentiable,), (once_differentiable, another)])
@pytest.mark.parametrize("method", [unrolled, partial(flat, keep=0), truncated(1), implicit(2.0)])
@pytest.mark.parametrize("after", [lambda y: y.sum(), lambda y: y.square().sum()], ids=["sum", "squares"])
def test_a_marked_function_is_refused(method: Method, marks: Any, mapped: bool, after: Any) -> None:
    """Torch raises no error here: it would take the function's gradient for a constant."""
    w = torch.tensor([0.5, -1.0], requires_grad=True)
    with pytest.raises(
        UserError, match=r"^Cube is a .* marked once_differentiable, .*--gradient first-order"
    ):
        solved(method, lambda p: after(cube(*marks)(p["w"])), mapped, w)
    found, wanted = (
        solved(first_order, lambda p, f=f: after(f(p["w"])), mapped, w) for f in (cube(*marks), cube())
    )
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("method", [unrolled, partial(flat, keep=0)])
def test_an_unmarked_function_is_taken(method: Method, mapped: bool) -> None:
    w = torch.tensor([0.5, -1.0], requires_grad=True)
    found, wanted = (
        solved(method, lambda p, f=f: f(p["w"]).sum(), mapped, w) for f in (cube(), lambda x: x**3)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_marked_function_beside_what_is_adapted_is_taken() -> None:
    """Features that the inner loop does not move are differentiated once only, on the way back."""
    found = []
    for f in (cube(once_differentiable), lambda x: x**3):
        v, w = (torch.tensor(x, requires_grad=True) for x in ([0.5, -1.0], [1.0, 2.0]))
        z = f(v)
        problem = InnerProblem({"w": w}, lambda p, step, z=z: (z * p["w"]).square().sum(), sgd(0.1), 3)
        found.append(torch.autograd.grad(unrolled(problem).params["w"].sum(), (v, w)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


class Kernel(nn.Module):
    """A body that ends in some kernel."""

    def __init__(self, kernel: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.into, self.kernel, self.features = nn.Linear(1, 4), kernel, 4

    def forward(self, x: Tensor) -> Tensor:
        return self.kernel(torch.tanh(self.into(x)))


def flash(z: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        z = z.view(len(z), 1, 1, 4)
        return F.scaled_dot_product_attention(z, z, z).view(len(z), 4)


def failing(forward_message: str, backward_message: str) -> Callable[[Tensor], Tensor]:
    """A kernel that fails as one of torch's does, on the way back or on the way back of that."""

    class Back(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, g: Tensor) -> Tensor:
            return g.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            raise RuntimeError(backward_message)

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            if forward_message:
                raise RuntimeError(forward_message)
            return Back.apply(g)

    return Fails.apply


COMPILED = "torch.compile with aot_autograd does not currently support double backward"
CUDNN = "the derivative for '_cudnn_rnn_backward' is not implemented. Double backwards is not supported"
REMEDY = r"^a recurrent layer on cuDNN .*torch\.backends\.cudnn\.flags\(enabled=False\) .*GRUCell"


def task() -> Task:
    return Lines(shot=4, query=5).batch(np.arange(2)).to(torch.float64)


@pytest.mark.parametrize("gradient", ["unrolled", "flat"])
@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (cube(once_differentiable), "^Cube is a torch.autograd.Function .*--gradient first-order"),
        (flash, r"^torch has no second derivative of scaled_dot_\w+, .*--gradient first-order"),
        (failing("", CUDNN), REMEDY),
        (failing("cudnn RNN backward can only be called in training mode", ""), REMEDY),
        (failing("", COMPILED), "^a net compiled by torch.compile has no second derivative"),
    ],
    ids=["marked", "fused attention", "cuDNN", "cuDNN in evaluation", "compiled"],
)
def test_a_learner_says_what_to_use_instead(kernel: Any, said: str, gradient: Any) -> None:
    learner = MAML(Kernel(kernel), way=1, steps=4, gradient=gradient)
    with pytest.raises(UserError, match=said) as caught:
        estimate(learner, task())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kernel", [flash, failing("", CUDNN), cube(once_differentiable)])
def test_first_order_and_adapting_do_without(kernel: Any) -> None:
    learner = MAML(Kernel(kernel), way=1, steps=4, gradient="first-order")
    _, gradient = estimate(learner, task())
    assert gradient["net.body.into.weight"].norm() > 0
    learner.gradient = "unrolled"
    support = next(task().unbatch()).support
    learner.adapt(support.x, support.y)


def test_torchs_lstm_on_a_processor_in_the_implicit_way() -> None:
    class Recurrent(nn.Module):
        features = 3

        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(1, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x[..., None])[0][:, -1]

    learner = MAML(Recurrent(), way=1, steps=2, gradient=implicit(1.0)).train().float()
    lines = task().to(torch.float32)
    with pytest.raises(
        UserError, match=r"^torch's LSTM .* use LSTMCell, or the gradient 'unrolled' or 'flat'"
    ):
        estimate(learner, lines)
    learner.gradient = "flat"  # as it says
    assert estimate(learner, lines)[1]["net.body.lstm.weight_ih_l0"].norm() > 0


def test_other_errors_stay() -> None:
    learner = MAML(Kernel(failing("out of luck", "")), way=1)
    with pytest.raises(RuntimeError, match=r"^out of luck$"):
        estimate(learner, task())

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quickstudy.nets import native
from quickstudy.nets.fused import Block, Convolution
from quickstudy.nets.native import Native

EPS = 1e-2


def plain_block(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """What a block is, by torch's own operations and in their order: `[C, H, W, B]` → `[D, H/2, W/2, B]`."""
    y = F.conv2d(x.permute(3, 0, 1, 2), w, padding=1)
    mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
    z = (y - mean) / torch.sqrt(var + EPS) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    return F.max_pool2d(F.relu(z), 2).permute(1, 2, 3, 0)


def given_block(inputs: int, outputs: int, size: tuple[int, int], examples: int) -> list[Tensor]:
    torch.manual_seed(inputs + 10 * outputs + examples)
    shapes = [(inputs, *size, examples), (outputs, inputs, 3, 3), (outputs,), (outputs,)]
    return [torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in shapes]


@settings(max_examples=40, deadline=None)
@given(
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    examples=st.integers(1, 40),
    wide=st.booleans(),
)
def test_a_convolution_is_torchs(
    inputs: int, outputs: int, height: int, width: int, examples: int, wide: bool
) -> None:
    dtype = torch.double if wide else torch.float
    if not native.build(dtype=dtype):
        pytest.skip("no C compiler")
    library = native._loaded(dtype)
    x = torch.randn(inputs, height, width, examples, dtype=dtype)
    w = torch.randn(outputs, inputs, 3, 3, dtype=dtype)
    adjoint = torch.randn(outputs, height, width, examples, dtype=dtype)

    def all_of(convolve: Callable[[Tensor, Tensor], Tensor], *given: Tensor) -> tuple[Tensor, ...]:
        x, w, adjoint = given
        y = convolve(x.requires_grad_(), w.requires_grad_())
        return y, *torch.autograd.grad(y, (x, w), adjoint)

    def torchs(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x.permute(3, 0, 1, 2), w, padding=1).permute(1, 2, 3, 0)

    ours = all_of(lambda x, w: Convolution.apply(library, x, w, False), x, w, adjoint)
    theirs = all_of(torchs, x, w, adjoint)
    sizes = all_of(torchs, *(v.detach().abs() for v in (x, w, adjoint)))  # of the terms of each sum
    for mine, wanted, size in zip(ours, theirs, sizes, strict=True):
        assert ((mine - wanted).abs() <= 100 * torch.finfo(dtype).eps * size).all()


def test_a_convolution_twice_differentiated_by_finite_differences(kernels: Native) -> None:
    x, w, *_ = given_block(2, 3, (4, 3), 3)
    assert torch.autograd.gradgradcheck(lambda x, w: Convolution.apply(kernels, x, w, False), (x, w))


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "examples"),
    [(1, 4, (6, 6), 3), (3, 5, (7, 7), 2), (2, 20, (3, 5), 25), (5, 6, (28, 28), 5), (4, 4, (2, 9), 1)],
)
def test_a_block_is_its_parts(
    inputs: int, outputs: int, size: tuple[int, int], examples: int, kernels: Native
) -> None:
    """Value, gradient and the gradient of a function of the gradient, with scales of both signs."""
    given = given_block(inputs, outputs, size, examples)

    def all_of(block: Tensor) -> list[Tensor]:
        first = torch.autograd.grad(block.sin().sum(), given, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), given)
        return [block, *first, *second]

    ours, theirs = all_of(Block.apply(kernels, *given, EPS)[0]), all_of(plain_block(*given))
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


def test_a_block_by_finite_differences(kernels: Native) -> None:
    given = given_block(2, 3, (5, 4), 3)
    assert torch.autograd.gradcheck(lambda *v: Block.apply(kernels, *v, EPS)[0], given)
    assert torch.autograd.gradgradcheck(lambda *v: Block.apply(kernels, *v, EPS)[0], given)


@pytest.mark.parametrize("wanted", [w for w in product([True, False], repeat=4) if any(w)])
def test_only_what_needs_a_gradient_gets_one(wanted: tuple[bool, ...], kernels: Native) -> None:
    given = [v.requires_grad_(need) for v, need in zip(given_block(2, 3, (4, 4), 2), wanted, strict=True)]
    leaves = [v for v in given if v.requires_grad]

    def second(block: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(block.sin().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    for mine, theirs in zip(
        second(Block.apply(kernels, *given, EPS)[0]), second(plain_block(*given)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_its_moments_are_the_batchs(kernels: Native) -> None:
    x, w, scale, shift = given_block(2, 3, (4, 4), 5)
    _, mean, var, *_ = Block.apply(kernels, x, w, scale, shift, EPS)
    y = F.conv2d(x.permute(3, 0, 1, 2), w, padding=1)
    torch.testing.assert_close(mean, y.mean((0, 2, 3)))
    torch.testing.assert_close(var, y.var((0, 2, 3), correction=0))
    assert not mean.requires_grad
    assert not var.requires_grad


def test_a_third_derivative_is_refused(kernels: Native) -> None:
    given = given_block(1, 2, (4, 4), 2)
    first = torch.autograd.grad(Block.apply(kernels, *given, EPS)[0].sum(), given[1], create_graph=True)[0]
    second = torch.autograd.grad(first.square().sum(), given[1], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="twice, not three times: set QUICKSTUDY_KERNELS=torch"):
        torch.autograd.grad(second.sum(), given[1])

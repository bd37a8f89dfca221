from __future__ import annotations

import os
import threading
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from quickstudy.nets import native
from quickstudy.nets.fused import Block, is_right
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
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    examples=st.integers(1, 40),
    wide=st.booleans(),
)
def test_without_moments_it_is_a_convolution(
    inputs: int, outputs: int, height: int, width: int, examples: int, wide: bool
) -> None:
    """What it makes of pictures, and its gradient, within rounding of every sum."""
    dtype = torch.double if wide else torch.float
    if not native.build(dtype=dtype):
        pytest.skip("no C compiler")
    library = native._loaded(dtype)
    x = torch.randn(inputs, height, width, examples, dtype=dtype)
    w = torch.randn(outputs, inputs, 3, 3, dtype=dtype)
    scale, shift = torch.randn(2, outputs, dtype=dtype)

    def theirs(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y = F.conv2d(x.permute(3, 0, 1, 2), w, padding=1)
        return F.max_pool2d(F.relu(y * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)), 2).permute(1, 2, 3, 0)

    given = [v.requires_grad_() for v in (x, w, scale, shift)]
    ours, wanted = Block.apply(library, *given, None, False)[0], theirs(*given)
    adjoint = torch.randn_like(ours)
    sizes = [theirs(*(v.detach().abs() for v in given)).max()]  # of the terms of each sum, at most
    sizes += [w.abs().sum() * scale.abs().max() * adjoint.abs().max()]
    sizes += [x.abs().max() * height * width * examples * scale.abs().max() * adjoint.abs().max()]
    sizes += [sizes[0] / scale.abs().min() * height * width * examples * adjoint.abs().max()]
    sizes += [adjoint.abs().sum()]
    pairs = zip(
        (ours, *torch.autograd.grad(ours, given, adjoint)),
        (wanted, *torch.autograd.grad(wanted, given, adjoint)),
        sizes,
        strict=True,
    )
    for mine, right, size in pairs:
        assert (mine - right).abs().max() <= 20 * torch.finfo(dtype).eps * size


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

    ours, theirs = all_of(Block.apply(kernels, *given, EPS, False)[0]), all_of(plain_block(*given))
    for mine, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


def test_a_block_by_finite_differences(kernels: Native) -> None:
    given = given_block(2, 3, (5, 4), 3)
    assert torch.autograd.gradcheck(lambda *v: Block.apply(kernels, *v, EPS, False)[0], given)
    assert torch.autograd.gradgradcheck(lambda *v: Block.apply(kernels, *v, EPS, False)[0], given)


@pytest.mark.parametrize("wanted", [w for w in product([True, False], repeat=4) if any(w)])
def test_only_what_needs_a_gradient_gets_one(wanted: tuple[bool, ...], kernels: Native) -> None:
    given = [v.requires_grad_(need) for v, need in zip(given_block(2, 3, (4, 4), 2), wanted, strict=True)]
    leaves = [v for v in given if v.requires_grad]

    def second(block: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(block.sin().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    for mine, theirs in zip(
        second(Block.apply(kernels, *given, EPS, False)[0]), second(plain_block(*given)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_its_moments_are_the_batchs(kernels: Native) -> None:
    x, w, scale, shift = given_block(2, 3, (4, 4), 5)
    _, mean, var, *_ = Block.apply(kernels, x, w, scale, shift, EPS, False)
    y = F.conv2d(x.permute(3, 0, 1, 2), w, padding=1)
    torch.testing.assert_close(mean, y.mean((0, 2, 3)))
    torch.testing.assert_close(var, y.var((0, 2, 3), correction=0))
    assert not mean.requires_grad
    assert not var.requires_grad


def test_to_modes_a_block_is_one_call(kernels: Native) -> None:
    """So that `inner/closure.py` sees what goes into it, and can put something else there."""
    given = [v.detach() for v in given_block(2, 3, (4, 4), 5)]
    w, called = torch.randn_like(given[1]), []

    class Other(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func)
            return func(*(w if v is given[1] else v for v in args), **(kwargs or {}))

    with Other():
        h = Block.apply(kernels, *given, EPS, False)[0]
    assert called == [Block.apply]
    assert torch.equal(h, Block.apply(kernels, given[0], w, *given[2:], EPS, False)[0])


def test_a_third_derivative_is_refused(kernels: Native) -> None:
    given = given_block(1, 2, (4, 4), 2)
    first = torch.autograd.grad(
        Block.apply(kernels, *given, EPS, False)[0].sum(), given[1], create_graph=True
    )[0]
    second = torch.autograd.grad(first.square().sum(), given[1], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="twice, not three times: set QUICKSTUDY_KERNELS=torch"):
        torch.autograd.grad(second.sum(), given[1])


@pytest.mark.parametrize("inputs", [1, 3])
def test_without_moments_twice_by_finite_differences(inputs: int, kernels: Native) -> None:
    given = given_block(inputs, 3, (5, 4), 3)
    assert torch.autograd.gradcheck(lambda *v: Block.apply(kernels, *v, None, False)[0], given)
    assert torch.autograd.gradgradcheck(lambda *v: Block.apply(kernels, *v, None, False)[0], given)


def test_moments_that_carry_by_finite_differences(kernels: Native) -> None:
    given = given_block(2, 3, (5, 4), 3)

    def block(*v: Tensor) -> Tensor:
        h, mean, var, *_ = Block.apply(kernels, *v, EPS, True)
        return h.sin().sum() + (mean.exp() * var.sin()).sum()

    assert torch.autograd.gradcheck(block, given)
    first = torch.autograd.grad(block(*given), given, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once, not twice: set QUICKSTUDY_KERNELS=torch"):
        torch.autograd.grad(first[1].sum(), given[1])
    alone = torch.autograd.grad(Block.apply(kernels, *given, EPS, True)[2].sum(), given[:2])
    y = F.conv2d(given[0].permute(3, 0, 1, 2), given[1], padding=1)
    torch.testing.assert_close(alone, torch.autograd.grad(y.var((0, 2, 3), correction=0).sum(), given[:2]))


def test_no_task_at_all(kernels: Native) -> None:
    given = [v.detach()[None].expand(0, *v.shape) for v in given_block(2, 3, (4, 4), 2)]
    assert Block.apply(kernels, *given, EPS, False)[0].shape == (0, 3, 2, 2, 2)


def test_kernels_that_are_wrong_are_not_taken(kernels: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_right(kernels, torch.double)
    run = Native.__call__

    for wrong in ("backward", "twice"):

        def off(self: Native, name: str, *rest: Any, wrong: str = wrong) -> None:
            run(self, name, *rest)
            if name == wrong:
                rest[-4].mul_(1.01)

        monkeypatch.setattr(Native, "__call__", off)
        assert not is_right(kernels, torch.double)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_batches_from_several_threads_at_once(kernels: Native) -> None:
    """Each is helped by others' workers too, and a process forked after them has workers of its own."""
    batches = [
        [v.detach()[None].repeat(7, *[1] * v.ndim) for v in given_block(2, c, (6, 6), 3)] for c in (3, 5)
    ]
    before, differing = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        alone = [Block.apply(kernels, *given, EPS, False)[0] for given in batches]

        def many(first: int) -> None:
            torch.set_num_threads(3)
            for i in range(100):
                case = (first + i) % 2
                if not torch.equal(Block.apply(kernels, *batches[case], EPS, False)[0], alone[case]):
                    differing.append(case)

        workers = [threading.Thread(target=many, args=(i,)) for i in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert differing == []
        if hasattr(os, "fork"):
            child = os.fork()
            if not child:
                os._exit(int(not torch.equal(Block.apply(kernels, *batches[0], EPS, False)[0], alone[0])))
            assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)

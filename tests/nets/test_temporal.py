from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nets.temporal import CausalAttention, DenseBlock, TemporalBlock

pytestmark = pytest.mark.usefixtures("float64")

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: DenseBlock(3, 4, dilation=2),
    "temporal": lambda: TemporalBlock(3, 4, reach=5),
    "attention": lambda: CausalAttention(3, 4, 5),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_now_is_the_past_one_element_longer(kind: str) -> None:
    """Each of the q elements gets what it would as the last one of a sequence of its own."""
    layer, past, now = LAYERS[kind](), torch.randn(7, 3), torch.randn(4, 3)
    _, found = layer(past, now)
    for q in range(4):
        longer, _ = layer(torch.cat([past, now[q : q + 1]]), now)
        torch.testing.assert_close(found[q], longer[-1])


@pytest.mark.parametrize("kind", LAYERS)
def test_nothing_depends_on_what_comes_later(kind: str) -> None:
    layer, x, now = LAYERS[kind](), torch.randn(7, 3, requires_grad=True), torch.randn(2, 3)
    past, _ = layer(x, now)
    for t in range(7):
        (gradient,) = torch.autograd.grad(past[t].sum(), x, retain_graph=True)
        assert (gradient[t + 1 :] == 0).all()
        assert (gradient[t] != 0).all()


@pytest.mark.parametrize("reach", [1, 3, 5, 7])
def test_convolutions_look_as_far_back_as_they_say(reach: int) -> None:
    layer, x = TemporalBlock(3, 4, reach), torch.randn(12, 3)
    x.requires_grad_()
    _, now = layer(x, torch.randn(1, 3))
    (gradient,) = torch.autograd.grad(now.sum(), x)
    seen = (gradient != 0).any(1).nonzero()[:, 0]
    assert len(seen) >= reach
    assert seen.tolist() == list(range(12 - len(seen), 12))


def test_a_dense_block_is_torchs_dilated_convolution() -> None:
    block, x = DenseBlock(3, 4, dilation=2), torch.randn(6, 3)
    taps = torch.stack([block.before.weight, block.here.weight], -1)  # [2 F, C, 2]
    a, g = F.conv1d(F.pad(x.T, (2, 0)), taps, block.here.bias, dilation=2).T.chunk(2, -1)
    torch.testing.assert_close(block(x, x)[0], torch.cat([x, a.tanh() * g.sigmoid()], -1))


def test_attention_by_loops() -> None:
    layer, x = CausalAttention(3, 4, 5), torch.randn(6, 3)
    q, k, v = (part.detach().numpy() for part in layer.project(x).split([4, 4, 5], -1))
    wanted = np.zeros((6, 5))
    for t in range(6):
        odds = [math.exp(q[t] @ k[s] / 2) for s in range(t + 1)]
        wanted[t] = sum(o * v[s] for s, o in enumerate(odds)) / sum(odds)
    found: Tensor = layer(x, x)[0].detach()
    np.testing.assert_allclose(found.numpy(), np.concatenate([x.numpy(), wanted], 1), rtol=1e-12)

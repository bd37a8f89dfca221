from __future__ import annotations

import pytest
import torch

from quickstudy.nets import TaskEncoder

pytestmark = pytest.mark.usefixtures("float64")


def test_a_mean_over_examples_one_by_one() -> None:
    encoder, z, y = TaskEncoder(3, 2, outputs=4, hidden=5), torch.randn(6, 3), torch.randn(6, 2)
    assert torch.equal(encoder(z, y), torch.zeros(4))
    torch.nn.init.normal_(encoder.task[-1].weight)
    first, second, third, fourth = (m for m in [*encoder.example, *encoder.task] if hasattr(m, "weight"))
    total = torch.zeros(5)
    for i in range(6):
        h = first.weight @ torch.cat([z[i], y[i]]) + first.bias
        total += (second.weight @ h.clamp(min=0) + second.bias).clamp(min=0) / 6
    wanted = fourth.weight @ (third.weight @ total + third.bias).clamp(min=0)
    torch.testing.assert_close(encoder(z, y), wanted, rtol=1e-12, atol=1e-12)


def test_neither_order_nor_repetition_matters() -> None:
    encoder, z, y = TaskEncoder(3, 2, outputs=4), torch.randn(6, 3), torch.randn(6, 2)
    torch.nn.init.normal_(encoder.task[-1].weight)
    order = torch.randperm(6)
    torch.testing.assert_close(encoder(z[order], y[order]), encoder(z, y))
    torch.testing.assert_close(encoder(z.repeat(3, 1), y.repeat(3, 1)), encoder(z, y))
    assert not torch.allclose(encoder(z, y[order]), encoder(z, y))

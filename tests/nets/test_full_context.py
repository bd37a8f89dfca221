from __future__ import annotations

import pytest
import torch

from quickstudy.nets.full_context import QueryContext, SupportContext

from .test_lstm import twin

pytestmark = pytest.mark.usefixtures("float64")


def test_support_examples_are_read_forwards_and_backwards() -> None:
    net, z = SupportContext(3), torch.randn(5, 3)
    onwards, _ = twin(net.forwards, 3)(z)
    back, _ = twin(net.backwards, 3)(z.flip(0))
    torch.testing.assert_close(net(z), onwards + back.flip(0) + z)


def test_a_query_looks_by_the_papers_recursion() -> None:
    net, q, g = QueryContext(3, steps=3), torch.randn(4, 3), torch.randn(5, 3)
    cell = net.cell
    from_q, from_seen = cell.from_input.weight.split(3, 1)
    for query, wanted in zip(q, net(q, g), strict=True):
        h, c = torch.zeros(3), torch.zeros(3)
        for _ in range(3):
            weights = torch.stack([(h @ row).exp() for row in g])
            seen = sum(w * row for w, row in zip(weights / weights.sum(), g, strict=True))
            gates = from_q @ query + from_seen @ seen + cell.from_output.weight @ h + cell.from_input.bias
            i, f, new, o = gates.chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * new.tanh()
            h = o.sigmoid() * c.tanh() + query
        torch.testing.assert_close(wanted, h)


def test_the_order_of_what_a_query_looks_at_does_not_matter() -> None:
    net, q, g = QueryContext(3, steps=2), torch.randn(4, 3), torch.randn(5, 3)
    torch.testing.assert_close(net(q, g[torch.randperm(5)]), net(q, g))

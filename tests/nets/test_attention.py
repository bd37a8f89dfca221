from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from quickstudy.errors import UserError
from quickstudy.nets import Attention, TransformerBlock, attend

pytestmark = pytest.mark.usefixtures("float64")


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query's weighted mean of values, number by number."""
    scores = [
        math.exp(sum(float(a * b) for a, b in zip(q, key, strict=True)) / math.sqrt(len(q))) for key in k
    ]
    return sum(s * value for s, value in zip(scores, v, strict=True)) / sum(scores)


def test_attention_against_a_loop() -> None:
    q, k, v = torch.randn(2, 4, 3), torch.randn(2, 6, 3), torch.randn(2, 6, 5)
    wanted = torch.stack([torch.stack([naive(a, k[h], v[h]) for a in q[h]]) for h in range(2)])
    torch.testing.assert_close(attend(q, k, v), wanted, rtol=1e-11, atol=1e-12)


def test_only_allowed_keys_are_seen() -> None:
    x, v = torch.randn(5, 3), torch.randn(5, 2)
    found = attend(x, x, v, allowed=torch.ones(5, 5, dtype=torch.bool).tril())
    for i in range(5):
        torch.testing.assert_close(found[i], naive(x[i], x[: i + 1], v[: i + 1]), rtol=1e-11, atol=1e-12)


def test_each_query_sees_its_own_key_and_no_others() -> None:
    q, k, v = torch.randn(4, 3), torch.randn(6, 3), torch.randn(6, 2)
    own = torch.randn(4, 3), torch.randn(4, 2)
    found = attend(q, k, v, own=own)
    for i in range(4):
        keys, values = torch.cat([k, own[0][i : i + 1]]), torch.cat([v, own[1][i : i + 1]])
        torch.testing.assert_close(found[i], naive(q[i], keys, values), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("itself", [False, True])
def test_heads_are_torchs(itself: bool) -> None:
    """With the same weights, torch's module gives the same; a query's own token is one more, for it alone."""
    ours = Attention(8, heads=4)
    theirs = torch.nn.MultiheadAttention(8, 4)
    with torch.no_grad():
        for p in ours.parameters():
            p.normal_()
        theirs.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(torch.eye(8))
        theirs.out_proj.bias.zero_()
    x, context = torch.randn(4, 8), torch.randn(6, 8)
    told = None if itself else torch.randn(6, 8)
    for i, found in enumerate(ours(x, context, told, itself)):
        keys = torch.cat([context, x[i : i + 1]]) if itself else context
        values = keys if told is None else told
        heads, _ = theirs(ours.query(x[i : i + 1]), ours.key(keys), ours.value(values))
        torch.testing.assert_close(found, ours.out(heads[0]))


def test_it_begins_as_a_look_up() -> None:
    """What asks finds what it is most alike, as it was told."""
    keys, told = 30 * torch.randn(5, 8), torch.randn(5, 8)
    torch.testing.assert_close(Attention(8)(keys[[3, 0]], keys, told), told[[3, 0]])


def test_a_blocks_tokens_look_at_the_context_alone() -> None:
    """And the order of the context does not matter."""
    block, x, context = TransformerBlock(8, 2), torch.randn(4, 8), torch.randn(6, 8)
    for itself in (False, True):
        found = block(x, context, itself)
        apart = torch.cat([block(row[None], context[torch.randperm(6)], itself) for row in x])
        torch.testing.assert_close(found, apart)
    assert not torch.allclose(block(x, context, True), block(x, context, False))
    torch.testing.assert_close(block(x, torch.cat([context, x[:1]]))[:1], block(x[:1], context, True))


def test_heads_that_cannot_share_are_refused() -> None:
    with pytest.raises(UserError, match="3 heads cannot share 8 numbers: choose a divisor"):
        Attention(8, heads=3)


def test_a_key_that_counts_twice_is_two_keys() -> None:
    q, k, v = torch.randn(4, 6), torch.randn(3, 6), torch.randn(3, 2)
    twice = [0, 1, 1, 2]
    found = attend(q, k, v, counts=torch.tensor([1.0, 2.0, 1.0]))
    torch.testing.assert_close(found, attend(q, k[twice], v[twice]))
    net, x, context = TransformerBlock(8, 2), torch.randn(4, 8), torch.randn(3, 8)
    found = net(x, context, True, torch.tensor([1.0, 2.0, 1.0]))
    torch.testing.assert_close(found, net(x, context[twice], True))

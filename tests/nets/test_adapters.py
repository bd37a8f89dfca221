"""Low-rank adapters: the base's function at the start, that of W + α/r · B A with adapters."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import remove_parametrizations

from quickstudy.errors import UserError
from quickstudy.nets import lora, mlp

pytestmark = pytest.mark.usefixtures("float64")


class Keys(nn.Module):
    """Attention whose keys and values are of other widths than its queries: three matrices, not a stack."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, kdim=4, vdim=3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x[..., :4], x[..., :3])[0]


NETS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 5),
    "without bias": lambda: nn.Sequential(nn.Linear(6, 7, bias=False), nn.Tanh(), nn.Linear(7, 2)),
    "transformer": lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True),
    "keys": Keys,
}
X = (4, 3, 6)


def filled(net: nn.Module) -> nn.Module:
    """Adapters as after some learning: no B is zero."""
    with torch.no_grad():
        for k, p in net.named_parameters():
            if "lora" in k:
                p.normal_()
    return net


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", NETS)
def test_at_the_start_it_is_the_base(kind: str, training: bool) -> None:
    base = NETS[kind]().train(training)
    net, x = lora(copy.deepcopy(base), rank=2), torch.randn(X)
    with torch.set_grad_enabled(training):  # without gradients torch takes other ways through a transformer
        torch.testing.assert_close(net(x), base(x), rtol=1e-12, atol=1e-12)
        assert not torch.allclose(filled(net)(x), base(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("alpha", [None, 5.0])
@pytest.mark.parametrize("kind", NETS)
def test_it_is_the_dense_net_of_merged_weights(kind: str, alpha: float | None, training: bool) -> None:
    """Merged by hand: query, key and value of a stack each by an A and a B of its own."""
    dense = NETS[kind]().train(training)
    net, x = filled(lora(copy.deepcopy(dense), rank=2, alpha=alpha)), torch.randn(X)
    parts = dict(net.named_parameters())
    with torch.no_grad():
        for name, p in dense.named_parameters():
            layer, _, weight = name.rpartition(".")
            own = ".".join(filter(None, [layer, "parametrizations", weight, "0"]))
            if f"{own}.lora_a" not in parts:
                continue
            a, b = parts[f"{own}.lora_a"], parts[f"{own}.lora_b"]
            height = len(p) // len(a)
            for i in range(len(a)):
                p[i * height : (i + 1) * height] += (alpha or 2) / 2 * (b[i] @ a[i])
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(net(x), dense(x), rtol=1e-12, atol=1e-12)


def test_torch_merges_one_for_good() -> None:
    net, x = filled(lora(nn.Linear(6, 5), rank=2)), torch.randn(X)
    before = net(x)
    remove_parametrizations(net, "weight")
    assert {k for k, _ in net.named_parameters()} == {"weight", "bias"}
    torch.testing.assert_close(net(x), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", NETS)
def test_gradients_are_on_adapters_only(kind: str) -> None:
    net = filled(lora(NETS[kind](), rank=2))
    net(torch.randn(X)).square().sum().backward()
    touched = {k for k, p in net.named_parameters() if p.grad is not None}
    assert touched == {k for k, _ in net.named_parameters() if "lora" in k}
    assert all(p.grad.norm() > 0 for k, p in net.named_parameters() if "lora" in k)


def test_the_base_stays_trainable_where_it_is_to_be_learned() -> None:
    net = lora(mlp(3, (4,)), rank=1, freeze=False)
    assert all(p.requires_grad for p in net.parameters())
    assert net.features == 4
    net = mlp(3, (4,))
    net[1].bias.requires_grad_(False)
    lora(net, rank=1, freeze=False)
    assert not net[1].bias.requires_grad


def test_tied_weights_stay_tied() -> None:
    """One adapter serves both places; merged by hand, the net is the same."""
    net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    net[2].weight = net[0].weight
    filled(lora(net, rank=2))
    assert len([k for k, _ in net.named_parameters() if "lora" in k]) == 2
    assert torch.equal(net[0].weight, net[2].weight)
    adapter, x = net[0].parametrizations.weight[0], torch.randn(X)
    merged = net[0].parametrizations.weight.original + (adapter.lora_b @ adapter.lora_a)[0]
    by_hand = torch.tanh(x @ merged.T + net[0].bias) @ merged.T + net[2].bias
    torch.testing.assert_close(net(x), by_hand, rtol=1e-12, atol=1e-12)


def test_a_pattern_chooses() -> None:
    layer = NETS["transformer"]()

    def adapted(pattern: str) -> set[str]:
        net = lora(copy.deepcopy(layer), rank=1, pattern=pattern)
        return {k.removesuffix(".0.lora_a") for k, _ in net.named_parameters() if k.endswith("lora_a")}

    assert adapted(r"^linear1") == {"linear1.parametrizations.weight"}
    assert adapted("self_attn") == {
        "self_attn.parametrizations.in_proj_weight",
        "self_attn.out_proj.parametrizations.weight",
    }


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="rank must be at least 1, not 0"):
        lora(nn.Linear(2, 2), rank=0)
    with pytest.raises(UserError, match=r"no weight of Linear is matched by pattern='conv': weight$"):
        lora(nn.Linear(2, 2), rank=1, pattern="conv")
    with pytest.raises(UserError, match="it has no linear and no attention layer"):
        lora(nn.Conv2d(1, 2, 3), rank=1)
    with pytest.raises(UserError, match=r"pattern='\(' is no regular expression"):
        lora(nn.Linear(2, 2), rank=1, pattern="(")

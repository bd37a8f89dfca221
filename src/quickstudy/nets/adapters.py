"""Low-rank adapters, LoRA (Hu et al. 2021, arXiv 2106.09685, section 4).

A weight matrix W `[out, in]` becomes W + α/r · B A, with A `[r, in]` and B `[out, r]`, r far below both. W
stays frozen; B is 0 at the start, so that the net computes what it did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from quickstudy.errors import UserError
from quickstudy.options import above_zero, at_least_one

STACKED = {"in_proj_weight": 3, "q_proj_weight": 1, "k_proj_weight": 1, "v_proj_weight": 1}
"""How many matrices each weight of `nn.MultiheadAttention` stacks, of query, key and value; its last layer is
an `nn.Linear`."""


class LowRank(nn.Module):
    """What is added to p matrices stacked in one `[p · out, in]`, each with an A and a B of its own.

    Args:
        weight: the matrix.
        rank: r.
        scale: α/r.
        parts: p.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, parts: int = 1) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.lora_a = nn.Parameter(weight.new_empty(parts, rank, inputs).normal_(std=inputs**-0.5))
        self.lora_b = nn.Parameter(weight.new_zeros(parts, outputs // parts, rank))
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.lora_b @ self.lora_a).flatten(0, 1)


def lora(
    net: nn.Module, rank: int, *, alpha: float | None = None, pattern: str = "", freeze: bool = True
) -> nn.Module:
    """The same net with low-rank adapters in its `nn.Linear` and `nn.MultiheadAttention` layers, in place.

    The adapters' parameters are named `….lora_a` and `….lora_b`, so that `inner_params="lora"` makes them all
    that an inner loop moves; `torch.nn.utils.parametrize.remove_parametrizations` merges one into its matrix.
    A matrix that such layers share has one adapter for all of them; another kind of layer that uses it too,
    such as an embedding, goes on with the matrix alone.

    Args:
        net: any module.
        rank: r, of each adapter.
        alpha: α, by default r, so that B A is added as it is.
        pattern: a regular expression over the weights' names, such as "self_attn"; by default all.
        freeze: whether everything but the adapters is frozen, neither adapted nor meta-learned; else the rest
            is left as it is, for the outer loop to learn.

    Raises:
        UserError: a rank below 1, an α that is not above 0, or no such layer that the pattern matches.

    >>> net = lora(nn.Linear(8, 6), rank=2)
    >>> [(k, tuple(p.shape)) for k, p in net.named_parameters() if p.requires_grad]
    [('parametrizations.weight.0.lora_a', (1, 2, 8)), ('parametrizations.weight.0.lora_b', (1, 6, 2))]
    """
    at_least_one(rank=rank)
    above_zero(alpha=alpha)
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UserError(f"pattern={pattern!r} is no regular expression: {error}") from error
    found = list(_matrices(net))
    chosen = [each for each in found if wanted.search(each[0])]
    if not chosen:
        names = ", ".join(name for name, *_ in found[:4]) or "it has no linear and no attention layer"
        raise UserError(f"no weight of {type(net).__name__} is matched by pattern={pattern!r}: {names}")
    if freeze:
        net.requires_grad_(False)
    adapters: dict[Tensor, LowRank] = {}  # of tied weights one
    for _, layer, weight, parts in chosen:
        matrix = getattr(layer, weight)
        if matrix not in adapters:
            adapters[matrix] = LowRank(matrix.detach(), rank, (alpha or rank) / rank, parts)
        # Not `unsafe`: torch checks that the shape stays.
        register_parametrization(layer, weight, adapters[matrix].train(layer.training))
    return net


def _matrices(net: nn.Module) -> Iterator[tuple[str, nn.Module, str, int]]:
    """(name, layer, the weight's name in it, matrices in it) of each weight that may have an adapter."""
    for name, layer in net.named_modules():
        place = f"{name}." if name else ""
        if isinstance(layer, nn.Linear):
            yield f"{place}weight", layer, "weight", 1
        if isinstance(layer, nn.MultiheadAttention):
            for weight, parts in STACKED.items():
                if getattr(layer, weight) is not None:
                    yield place + weight, layer, weight, parts

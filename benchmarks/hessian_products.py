"""A vector-Hessian product of a support loss: forward over reverse beside reverse over reverse.

    python benchmarks/hessian_products.py [--rounds 15] [--out results/hessian_products.json]

Flat memory goes back through a step with one such product. Reverse over reverse is what it uses: it gives the
adjoints of all else a step depends on (learned rates, weights that are not adapted) at once, and the native
kernels have it. Here both are torch's own, in turn, by processor time, in one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from record import count, options, record
from rich.console import Console
from rich.table import Table
from strategies import transformer
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.learners.descent import Net
from quickstudy.nets import conv4, mlp

NETS: dict[str, Callable[[], nn.Module]] = {
    "MLP 40-40": lambda: mlp(784, (40, 40)),
    "MLP 512-512": lambda: mlp(784, (512, 512)),
    "transformer": transformer,
    "conv4 of 20 channels": lambda: conv4(20, norm="batch"),
    "conv4 of 64 channels": lambda: conv4(64, norm="batch"),
}
Params = dict[str, Tensor]


def forward_over_reverse(loss: Callable[[Params], Tensor], at: Params, v: Params) -> Params:
    """The derivative of the gradient in the direction v."""
    return jvp(grad(loss), (at,), (v,))[1]


def reverse_over_reverse(loss: Callable[[Params], Tensor], at: Params, v: Params) -> Params:
    """The gradient of the gradient's product with v."""
    leaves = {k: p.detach().requires_grad_() for k, p in at.items()}
    first = torch.autograd.grad(loss(leaves), list(leaves.values()), create_graph=True)
    value = torch.stack([(g * v[k]).sum() for k, g in zip(leaves, first, strict=True)]).sum()
    found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def compare(make: Callable[[], nn.Module], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, for a 5-way 5-shot support set, and how far they are apart."""
    torch.manual_seed(0)
    net, x, y = Net(make(), 5), torch.randn(25, 1, 28, 28), torch.arange(5).repeat(5)
    at = {k: p.detach() for k, p in net.named_parameters()}
    v = {k: torch.randn_like(p) for k, p in at.items()}

    def loss(params: Params) -> Tensor:
        return F.cross_entropy(functional_call(net, params, (x,)), y)

    ways = {"forward over reverse": forward_over_reverse, "reverse over reverse": reverse_over_reverse}
    found = {name: way(loss, at, v) for name, way in ways.items()}
    one, other = (torch.cat([g.flatten() for g in each.values()]) for each in found.values())
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            way(loss, at, v)
            spent[name].append(1000 * (time.process_time() - began))
    return {k: statistics.median(v) for k, v in spent.items()} | {
        "off": float((one - other).norm() / other.norm())
    }


def main() -> None:
    parser = options(__doc__, "hessian_products")
    parser.add_argument("--rounds", type=count, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with sdpa_kernel(SDPBackend.MATH):
        rows = {name: compare(make, given.rounds) for name, make in NETS.items()}
    table = Table("net", "forward over reverse, ms", "reverse over reverse, ms", "ratio")
    for name, row in rows.items():
        a, b = row["forward over reverse"], row["reverse over reverse"]
        table.add_row(name, f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}")
    Console().print(table)
    record(given.out, rows=rows)


if __name__ == "__main__":
    main()

"""Learned rates: of an inner loop, by the name of a parameter or of a layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from quickstudy.inner.rules import Params


class Rates(nn.Module):
    """Rates that the outer loop learns.

    Args:
        rates: where they begin, by name; torch allows no dot in a parameter's name, and sees a slash instead.

    Example:
        >>> Rates({"body.0.weight": torch.tensor([0.1])}).named()
        {'body.0.weight': Parameter containing:
        tensor([0.1000], requires_grad=True)}
    """

    def __init__(self, rates: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, rate in rates.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(rate))

    def named(self) -> Params:
        """The rates by name."""
        return {name.replace("/", "."): rate for name, rate in self.named_parameters()}

    def cut(self, params: Params) -> Params:
        """A rate for each element of these parameters, of which a head of fewer ways has fewer rows.

        >>> Rates({"head.bias": torch.tensor([0.1, 0.2, 0.3])}).cut({"head.bias": torch.zeros(2)})
        {'head.bias': tensor([0.1000, 0.2000], grad_fn=<SliceBackward0>)}
        """
        rates = self.named()
        return {k: rates[k][tuple(map(slice, p.shape))] for k, p in params.items()}

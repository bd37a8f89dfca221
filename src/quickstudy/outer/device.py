"""Which processor a run uses."""

from __future__ import annotations

import torch
from torch import nn

from quickstudy.errors import UserError


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters are; the CPU for one without any.

    >>> device_of(nn.Linear(2, 1))
    device(type='cpu')
    """
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def find_device(name: str | None) -> torch.device:
    """The device with this name (cpu, cuda, cuda:1, mps); by default a CUDA GPU where there is one.

    Raises:
        UserError: no such device here.

    >>> find_device("cpu")
    device(type='cpu')
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"there is no device {name!r} here: leave --device away, or give cpu") from error
    return device

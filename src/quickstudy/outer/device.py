"""Which processor a run uses, and its tasks."""

from __future__ import annotations

import torch
from torch import nn

from quickstudy.errors import UserError
from quickstudy.tasks.task import Task


def suited(batch: Task, module: nn.Module) -> Task:
    """The tasks on a module's device, floats in its type; as they are where it has no parameters.

    >>> import numpy as np
    >>> from quickstudy.tasks.regression import Lines
    >>> batch = Lines(shot=2).batch(np.arange(3))
    >>> suited(batch, nn.Linear(1, 1).double()).support.x.dtype
    torch.float64
    """
    like = next(module.parameters(), None)
    return batch if like is None else batch.to(like.device).to(like.dtype)


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
    # An unknown word is a RuntimeError; a back end that torch was built without raises any of the three.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"there is no device {name!r} here: leave --device away, or give cpu") from error
    return device

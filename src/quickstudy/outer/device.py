"""Which processor a run uses, and its tasks."""

from __future__ import annotations

import torch
from torch import nn

from quickstudy.errors import UserError
from quickstudy.outer.distributed import local_rank, world
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

    Of many processes each has the GPU of its number on its machine.

    Raises:
        UserError: no such device here, or none for this process.

    >>> find_device("cpu")
    device(type='cpu')
    """
    if name is None:
        return own(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without a back end
        raise UserError(f"there is no device {name!r} here: leave --device away, or give cpu") from error
    return own(device)


def own(device: torch.device) -> torch.device:
    """The device, which no other process of this run uses if it is a GPU."""
    if device.type == "cuda" and world().size > 1:
        number, gpus = local_rank(), torch.cuda.device_count()
        if number >= gpus:
            raise UserError(
                f"{number + 1} processes for {gpus} GPUs: start one for each, or give --device cpu"
            )
        if device.index not in (None, number):
            raise UserError(
                f"--device {device} is one GPU for many processes: give cuda, and each has its own"
            )
    return device

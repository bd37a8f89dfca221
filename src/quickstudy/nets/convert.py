"""Nets that were written with torch's batch normalisation, made fit for an inner loop."""

from __future__ import annotations

import torch
from torch import nn

from quickstudy.errors import UserError
from quickstudy.nets.block import Blocks, parts
from quickstudy.nets.norm import BatchNorm
from quickstudy.nets.replace import replaced
from quickstudy.nets.traced import trace


def convert_batch_norm(net: nn.Module) -> nn.Module:
    """The same net with torch's batch normalisation layers replaced by `BatchNorm`, in place.

    Torch's layers write running averages while they compute, which an inner loop must not do. A layer that is
    used in several places stays one layer, and what was frozen stays so; in a learner each normalises by the
    statistics that the learner states, and its averages move by a twentieth a meta-step. Where an
    `nn.Sequential`, or a `forward` that can be traced, calls the blocks of few-shot learning (3×3
    convolution, normalisation, ReLU, 2×2 pooling) they are computed as fast as those of `conv4`.

    >>> convert_batch_norm(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)))[1]
    BatchNorm()
    """
    net = replaced(net, _converted)
    for module in [*net.modules()]:
        if type(module) is nn.Sequential and any(isinstance(p, tuple) for p in parts([*module])):
            module.__class__ = Blocks  # it stays itself, with its hooks and names
        elif not type(module).__module__.startswith(("torch.nn.", "quickstudy.nets.")):
            trace(module)
    return net


def _converted(theirs: nn.Module) -> nn.Module:
    if isinstance(theirs, nn.modules.lazy.LazyModuleMixin):
        raise UserError("call the net once before: a lazy layer does not know its channels yet")
    if not isinstance(theirs, nn.modules.batchnorm._BatchNorm):
        return theirs
    ours = BatchNorm(theirs.num_features, theirs.eps, theirs.running_mean is not None)
    floats = (v for v in (*theirs.parameters(), *theirs.buffers()) if v.is_floating_point())
    ours.to(next(floats, ours.mean))
    with torch.no_grad():
        for mine, given in (
            (ours.weight, theirs.weight),
            (ours.bias, theirs.bias),
            (ours.mean, theirs.running_mean),
            (ours.var, theirs.running_var),
        ):
            if given is not None:
                mine.data = given.detach().clone()  # with its device and dtype
    for mine, given in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        mine.requires_grad_(given is not None and given.requires_grad)
    return ours.train(theirs.training)

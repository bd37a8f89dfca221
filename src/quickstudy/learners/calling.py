"""How a learner calls a net: explicit weights, explicit statistics, and what fails is explained."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError
from quickstudy.inner.functional import with_weights
from quickstudy.inner.precision import computed
from quickstudy.inner.rules import Params
from quickstudy.learners.averaging import averaging_refused
from quickstudy.nets.native import kernels
from quickstudy.nets.norm import Moments, normalised_by


def call(net: nn.Module, weights: Params, x: Tensor, moments: Moments, *more: Tensor) -> Tensor:
    """`net(x)`, or `net(x, *more)`, with these weights and statistics instead of its own, in the precision of
    `computing_in`.

    Raises:
        UserError: the net writes to a buffer or averages batch statistics while it computes, or returns other
            features than it states.
    """
    before = {k: (v, v._version) for k, v in ((k, weights.get(k, v)) for k, v in net.named_buffers())}

    def check(*_: object) -> None:
        for name, buffer in net.named_buffers():
            given, version = before.get(name, (None, 0))
            if buffer is not given or buffer._version != version:
                raise UserError(
                    f"the net writes to its buffer {name!r} while it computes, so that a task would depend "
                    "on those before it: compute it from the input, or average it in "
                    "quickstudy.nets.norm.BatchNorm"
                )

    seeing = net.register_forward_hook(check) if before else None  # while the net has these for its own
    try:
        with normalised_by(moments), kernels(), averaging_refused(net):
            found = computed(lambda *inputs: with_weights(net, weights, inputs), x, *more)
        return as_stated(net, found)
    finally:
        if seeing:
            seeing.remove()


def width(body: nn.Module) -> int:
    """The number of features a body returns, which it states as `features`."""
    features: Any = getattr(body, "features", None)
    try:
        return operator.index(features)
    except TypeError:
        raise UserError(
            f"the body {type(body).__name__} does not say how many features it returns: set body.features"
        ) from None


def as_stated(body: nn.Module, z: Any) -> Tensor:
    """Features, where they are as many as the body states.

    Raises:
        UserError: they are not.
    """
    features = getattr(body, "features", None)
    shape = list(z.shape) if isinstance(z, Tensor) else f"a {type(z).__name__}"
    if isinstance(features, int) and (not isinstance(shape, list) or shape[1:] != [features]):
        raise UserError(
            f"the body {type(body).__name__} says it returns {features} features of each example, but "
            f"returned {shape}: set body.features, or flatten what it returns"
        )
    return z


@contextmanager
def explained(shape: torch.Size) -> Iterator[None]:
    """Say of what torch refuses within this block that it came of examples `[n, *shape]`.

    Raises:
        UserError: a net that does not fit them, or more memory than there is.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in reason:
            raise UserError(
                f"there is too little memory for examples of shape {tuple(shape)}: take fewer tasks at once "
                "(--meta-batch), fewer queries, or a smaller net or --size"
            ) from error
        for torchs, words in CAUSES.items():
            if torchs in str(error):
                raise UserError(words) from error
        raise UserError(f"the net failed on examples of shape {tuple(shape)}: {reason}") from error


CAUSES = {
    "backward through the graph a second time": "the net keeps what it computed from call to call, with its "
    "graph, as by adding to an attribute: compute it from the input, or keep it detached",
    "stateless API can't be used with": "a net of torch.jit or nn.DataParallel cannot be called with other "
    "weights than its own: give the net that it was made of",
}
"""What torch says of what is no matter of shapes, and what that means."""

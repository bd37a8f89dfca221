"""Begin meta-training with the body of another run, as where a pretrained net is meta-trained on.

Chen, Liu, Xu, Darrell, Wang 2021, arXiv 2003.04390 (Meta-Baseline), do so after ordinary pretraining on the
same classes.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from quickstudy.errors import RunError
from quickstudy.learners import Learner
from quickstudy.nets import Mirrored
from quickstudy.outer.load_run import load_run


def body(learner: Learner) -> nn.Module:
    """The net that two learners can share."""
    net: Any = getattr(learner, "net", learner)
    return net.body


def begin_with(learner: Learner, start: str, data: str, splits: dict[str, str]) -> None:
    """Give a learner the body of a run, with its best weights.

    Args:
        data: what the learner is to be trained on.
        splits: what tells its classes apart from others, for each part.

    Raises:
        RunError: there is no such run, its body is another one, or it was trained on another part of the same
            data, so that classes it knows may be among the unseen ones here.
    """
    before, config, run = load_run(start)
    then = run.config.get("splits", {})
    if config.data == data and any(then.get(name) != splits[name] for name in ("val", "test")):
        raise RunError(f"{start} has seen other parts of {data}: its split and pictures must be the same")
    own, theirs = plain(body(learner)), plain(body(before)).state_dict()
    if {k: v.shape for k, v in theirs.items()} != {k: v.shape for k, v in own.state_dict().items()}:
        raise RunError(f"the body of {start} is another: give the same --body, --channels, --size, --norm")
    own.load_state_dict(theirs)


def plain(net: nn.Module) -> nn.Module:
    """The net in a mirrored one, else the net."""
    return net.body if isinstance(net, Mirrored) else net

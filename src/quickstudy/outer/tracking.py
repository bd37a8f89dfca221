"""Records of a run as TensorBoard scalars, beside metrics.jsonl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quickstudy.errors import UserError
from quickstudy.outer.run_folder import RunFolder

FOLDER = "tensorboard"


def tensorboard(run: RunFolder) -> Callable[[dict[str, Any]], None]:
    """A `log` for `meta_train` that keeps event files in the run; `tensorboard --logdir runs` shows them.

    A run that is gone on with gets them anew from metrics.jsonl: no step is there twice.

    Raises:
        UserError: tensorboard is not installed.

    Example:
        >>> meta_train(learner, tasks, run=run, log=tensorboard(run))  # doctest: +SKIP
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("TensorBoard is not installed: pip install 'quickstudy[track]'") from error
    begun = False

    def log(record: dict[str, Any]) -> None:
        nonlocal begun
        records = [record]
        if not begun:  # the first since this process began
            for old in (run.path / FOLDER).glob("events.out.tfevents.*"):
                old.unlink()
            begun, records = True, list(run.records())
        with SummaryWriter(str(run.path / FOLDER)) as writer:  # records are rare: nothing is left open
            for each in records:
                for name, value in each.items():
                    part, _, what = name.partition("_")  # train_loss, val_loss: one chart, two curves
                    if what and value is not None:
                        writer.add_scalar(f"{what}/{part}", value, each["iteration"])

    return log

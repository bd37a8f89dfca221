"""A learner back from the run folder it was trained in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quickstudy.errors import RunError, in_brief
from quickstudy.learners import Learner
from quickstudy.outer.checkpoint import BEST
from quickstudy.outer.config import TrainConfig, check_folder
from quickstudy.outer.device import find_device
from quickstudy.outer.run_folder import RunFolder


def load_run(
    path: str | Path, data_dir: Path | None = None, device: str | None = None
) -> tuple[Learner, TrainConfig, RunFolder]:
    """The learner of a run, with its best weights, and the options it was trained with.

    >>> learner, config, run = load_run("runs/demo")  # doctest: +SKIP
    """
    run = RunFolder.open(path)
    saved = run.config
    find_device(device)  # there is one
    check_folder(data_dir)
    if "data" not in saved:
        raise RunError(
            f"{run.path} was written by meta_train, for a net of your own: make the learner again, then "
            "learner.load_state_dict(RunFolder.open(path).load('best.safetensors')[0])"
        )
    try:
        config = TrainConfig.from_json(saved, data_dir, device)
        learner = make_learner(saved, device)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else error
        raise RunError(f"{run.path / 'config.json'} does not hold a training run's options: {why}") from error
    weights = run.load(BEST)[0]
    try:
        learner.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(
            f"{run.path / BEST} does not fit {run.path / 'config.json'}: {in_brief(error)}"
        ) from error
    learner.eval()
    return learner, config, run


def make_learner(saved: Mapping[str, Any], device: str | None = None) -> Learner:
    """The learner that a run with these options, as its config.json has them, began with.

    >>> make_learner(RunFolder.open("runs/demo").config)  # doctest: +SKIP
    """
    config = TrainConfig.from_json(saved, None, device)
    return config.make_learner(tuple(saved["pictures"]["shape"]), saved["classes"])

"""What training needs to go on as if it had never stopped, in one file that is replaced in one rename."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from quickstudy.errors import RunError
from quickstudy.learners.base import Learner
from quickstudy.outer.optimizers import load_state, state_tensors
from quickstudy.outer.run_folder import RunFolder

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"


@dataclass
class History:
    """How a run went: its records, and the best validation.

    Args:
        records: what metrics.jsonl holds.
        best: the best validation value (accuracy, or minus the loss for regression); None before the first.
        best_iteration: the meta-step it was reached at.
        iteration: meta-steps done.
        stopped_early: whether patience ran out.
        seconds: time spent, over all the times it was resumed.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_iteration: int = 0
    iteration: int = 0
    stopped_early: bool = False
    seconds: float = 0.0


@dataclass
class Window:
    """Training averages since the last record; part of a checkpoint, so that a resumed record is the same."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    latest: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float]) -> None:
        self.latest = values
        self.count += 1
        for k, v in values.items():
            self.sums[k] = self.sums.get(k, 0.0) + v

    def take(self, prefix: str) -> dict[str, float]:
        means = {prefix + k: v / max(1, self.count) for k, v in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


@dataclass(eq=False)
class State:
    """What training changes from step to step."""

    learner: Learner
    optimizer: Optimizer
    schedule: LRScheduler
    history: History = field(default_factory=History)
    window: Window = field(default_factory=Window)

    def save(self, run: RunFolder) -> None:
        """Write everything training needs to go on."""
        tensors, rest = state_tensors(self.optimizer)
        history = self.history
        run.save(
            CHECKPOINT,
            {f"learner.{k}": v for k, v in self.learner.state_dict().items()}
            | {f"optimizer.{k}": v for k, v in tensors.items()},
            {
                "iteration": history.iteration,
                "records": len(history.records),
                "best": history.best,
                "best_iteration": history.best_iteration,
                "stopped_early": history.stopped_early,
                "seconds": history.seconds,
                "optimizer": rest,
                "window": {"sums": self.window.sums, "count": self.window.count},
            },
        )

    def restore(self, run: RunFolder) -> None:
        """Go back to the last checkpoint of a run.

        Raises:
            RunError: it is damaged, or of another learner.
        """
        tensors, meta = run.load(CHECKPOINT)
        history = self.history
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for _ in range(meta["iteration"]):
                self.schedule.step()  # a schedule is a function of the step: walked again, not stored
        try:
            self.learner.load_state_dict(_part(tensors, "learner."))
            load_state(self.optimizer, _part(tensors, "optimizer."), meta["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise RunError(f"{run.path / CHECKPOINT} does not fit this learner: {error}") from error
        history.records = [r for r in run.records() if r["iteration"] <= meta["iteration"]]
        if len(history.records) < meta.get("records", 0):
            found = f"{len(history.records)} of {meta['records']} records"
            raise RunError(f"{run.path / 'metrics.jsonl'} is damaged: it holds {found}")
        run.rewind(meta["iteration"])
        history.iteration, history.best = meta["iteration"], meta["best"]
        history.best_iteration, history.stopped_early = meta["best_iteration"], meta["stopped_early"]
        history.seconds = meta.get("seconds", 0.0)
        self.window.sums, self.window.count = meta["window"]["sums"], meta["window"]["count"]


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

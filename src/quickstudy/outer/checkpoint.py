"""What training needs to go on as if it had never stopped, in one file that is replaced in one rename."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from quickstudy.errors import RunError, in_brief
from quickstudy.inner.outcome import Outcome
from quickstudy.inner.rules import Params
from quickstudy.learners.base import Learner
from quickstudy.outer.distributed import world
from quickstudy.outer.measure import worth
from quickstudy.outer.optimizers import load_state, state_tensors
from quickstudy.outer.run_folder import RunFolder

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"


@dataclass
class History:
    """How a run went: its records, and the best validation.

    Args:
        records: what metrics.jsonl holds.
        best: the best validation value (see `worth`); None before the first.
        best_iteration: the meta-step it was reached at.
        iteration: meta-steps done.
        stopped_early: whether patience ran out.
        seconds: time spent, over all the times it was resumed.
        core_seconds: of processors, which others that use them do not lengthen; None of a run that was begun
            when this was not counted.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_iteration: int = 0
    iteration: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    core_seconds: float | None = 0.0

    @property
    def worse(self) -> int:
        """How many validations there were after the best one."""
        return sum(r["iteration"] > self.best_iteration for r in self.records)


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
    """What training changes from step to step.

    Args:
        run: where it is kept.
        best: the weights at the best validation; before the first, those training begins with.
        whole: whether this is the state after a whole number of meta-steps, validation included; `step` ends
            that, and the outer loop says when it is so again.
        clock: when the time spent was last counted, and the state kept.
        work: what of the processors had been used then.
    """

    learner: Learner
    optimizer: Optimizer
    schedule: LRScheduler
    run: RunFolder | None = None
    history: History = field(default_factory=History)
    window: Window = field(default_factory=Window)
    best: dict[str, Tensor] = field(default_factory=dict)
    whole: bool = True
    clock: float = field(default_factory=time.monotonic)
    work: float = field(default_factory=time.process_time)

    def go_on(self) -> None:
        """Bring the state to the run's last checkpoint, if there is one."""
        run, history = self.run, self.history
        if run is not None and (run.path / CHECKPOINT).exists():
            self.restore(run)
        elif run is not None:
            if sum(1 for _ in run.records()) > 1:  # after the first record there was one
                raise RunError(f"{run.path} has no {CHECKPOINT} to go on from: it was removed")
            run.rewind(0)
        if run is None or history.best is None or history.best_iteration == history.iteration:
            self.best = copied(self.learner)
            self.save_best()  # a crash may have come before they were saved
        else:
            self.best = run.load(BEST)[0]
        self.follow()

    def follow(self) -> None:
        """Begin where the first of many processes does, which alone reads the run folder."""
        here = world()
        if here.size > 1:
            tensors, meta, records, best = here.led(self._told)
            if not here.leads:
                self.become(tensors, meta, records)
                self.best = best

    def _told(self) -> tuple[dict[str, Tensor], dict[str, Any], list[dict[str, Any]], dict[str, Tensor]]:
        tensors, meta = self.content()
        return on_processor(tensors), meta, self.history.records, on_processor(self.best)

    def step(self, outcome: Outcome, gradient: Params, scale: float, progress: float) -> None:
        """A step of the meta-optimiser along `scale` times the meta-gradient, and what follows from it."""
        self.whole = False
        for name, p in self.learner.outer_parameters().items():
            p.grad = gradient[name] * scale if scale != 1.0 else gradient[name]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.learner.after_step({k: v.mean(0) for k, v in outcome.stats.items()}, gradient, progress)
        self.history.iteration += 1
        self.window.add({k: float(v.mean()) for k, v in outcome.metrics.items()})

    def add(self, record: dict[str, Any], patience: int | None) -> None:
        """Take in a record, and the weights where it is that of the best validation; keep both."""
        history = self.history
        history.records.append(record)
        if "val_loss" in record:
            value = worth({k.removeprefix("val_"): v for k, v in record.items() if k.startswith("val_")})
            if math.isfinite(value) and (history.best is None or value > history.best):
                history.best, history.best_iteration = value, history.iteration
                self.best = copied(self.learner)
            history.stopped_early = patience is not None and history.worse >= patience
        if self.run is not None:
            self.run.log(record)
        self.keep()
        # After the checkpoint: the best weights on disk are never newer than it, and where they are older,
        # it holds the newer ones itself.
        self.save_best()

    def keep(self) -> None:
        """Count the time, and write a checkpoint where there is a run folder."""
        history, now, work = self.history, time.monotonic(), time.process_time()
        history.seconds, self.clock = history.seconds + now - self.clock, now
        if history.core_seconds is not None:
            history.core_seconds, self.work = history.core_seconds + work - self.work, work
        if self.run is not None:
            self.save(self.run)

    def save_best(self) -> None:
        """Write the best weights where they are those of this iteration."""
        history = self.history
        if self.run is not None and history.best is not None and history.best_iteration == history.iteration:
            self.run.save(BEST, self.best, {"iteration": history.iteration})

    def save(self, run: RunFolder) -> None:
        """Write everything training needs to go on."""
        run.save(CHECKPOINT, *self.content())

    def content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything training needs to go on, but for the records: tensors, and a JSON value."""
        tensors, rest = state_tensors(self.optimizer)
        history = self.history
        return {
            **{f"learner.{k}": v for k, v in self.learner.state_dict().items()},
            **{f"optimizer.{k}": v for k, v in tensors.items()},
        }, {
            "iteration": history.iteration,
            "records": len(history.records),
            "best": history.best,
            "best_iteration": history.best_iteration,
            "stopped_early": history.stopped_early,
            "seconds": history.seconds,
            "core_seconds": history.core_seconds,
            "optimizer": rest,
            "window": {"sums": self.window.sums, "count": self.window.count},
        }

    def restore(self, run: RunFolder) -> None:
        """Go back to the last checkpoint of a run.

        Raises:
            RunError: it is damaged, or of another learner.
        """
        tensors, meta = run.load(CHECKPOINT)
        records = [r for r in run.records() if r["iteration"] <= meta["iteration"]]
        try:
            self.become(tensors, meta, records)
        except (KeyError, RuntimeError, ValueError) as error:
            raise RunError(f"{run.path / CHECKPOINT} does not fit this learner: {in_brief(error)}") from error
        if len(records) < meta.get("records", 0):
            found = f"{len(records)} of {meta['records']} records"
            raise RunError(f"{run.path / 'metrics.jsonl'} is damaged: it holds {found}")
        run.rewind(meta["iteration"])

    def become(self, tensors: dict[str, Tensor], meta: dict[str, Any], records: list[dict[str, Any]]) -> None:
        """Take over what `content` gave of a state that began as this one did."""
        history = self.history
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for _ in range(meta["iteration"]):
                self.schedule.step()  # a schedule is a function of the step: walked again, not stored
        self.learner.load_state_dict(_part(tensors, "learner."))
        load_state(self.optimizer, _part(tensors, "optimizer."), meta["optimizer"])
        for group, lr in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = lr  # of this schedule, which may be of more steps than the one that was saved
        history.records = records
        history.iteration, history.best = meta["iteration"], meta["best"]
        history.best_iteration, history.stopped_early = meta["best_iteration"], meta["stopped_early"]
        history.seconds, history.core_seconds = meta.get("seconds", 0.0), meta.get("core_seconds")
        self.window.sums, self.window.count = meta["window"]["sums"], meta["window"]["count"]


def copied(learner: Learner) -> dict[str, Tensor]:
    """The learner's weights, which later steps do not change."""
    return {k: v.clone() for k, v in learner.state_dict().items()}


def on_processor(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in the processor's memory, where any process can take them."""
    return {k: v.detach().cpu() for k, v in tensors.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

"""What a search has found: its trials, and the best of them."""

from __future__ import annotations

import csv
import io
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from quickstudy.evaluation.tuning.space import Space, adjusted
from quickstudy.files import write_bytes, write_json
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.words import as_words

Outcome = Literal["complete", "pruned", "failed", "running"]
Judged = Literal["accuracy", "log-likelihood", "mean squared error"]
"""What trials are judged by on meta-validation. An error is held with a minus: the greatest value is best."""


@dataclass(frozen=True)
class Trial:
    """One run of a search.

    Args:
        number: from 0.
        outcome: complete; pruned, ended early as others were ahead; failed, as `why` says; or running, in
            another process or until it is gone on with.
        value: its best accuracy on meta-validation, or what else it is judged by; None where it has none.
        ci95: half the width of that value's 95 % interval over tasks.
        values: what was searched.
        curve: (meta-step, value) of each validation.
        seconds: of training.
        why: what ended a trial that failed, or diverged.
    """

    number: int
    outcome: Outcome
    value: float | None
    ci95: float | None
    values: dict[str, Any]
    curve: list[tuple[int, float]] = field(default_factory=list)
    seconds: float | None = None
    why: str | None = None

    @property
    def name(self) -> str:
        """That of its run folder.

        >>> Trial(7, "failed", None, None, {}).name
        'trial-007'
        """
        return f"trial-{self.number:03d}"


@dataclass(frozen=True)
class Tuned:
    """A search that came to its end.

    Args:
        base: the options that it began with.
        space: what was searched.
        out: its folder.
        trials: all of them, by number.
        importance: the share of the differences in value that each option makes, by a random forest; empty
            where there are too few trials to tell.
        judged: what the trials' values are.
    """

    base: TrainConfig
    space: Space
    out: Path
    trials: list[Trial]
    importance: dict[str, float]
    judged: Judged = "accuracy"

    @property
    def ranked(self) -> list[Trial]:
        """The trials that are complete, the best first, of equals the earlier."""
        done = [t for t in self.trials if t.outcome == "complete" and t.value is not None]
        return sorted(done, key=lambda t: (-(t.value or 0.0), t.number))

    @property
    def best(self) -> Trial:
        """The trial that was best on meta-validation."""
        return self.ranked[0]

    @property
    def config(self) -> TrainConfig:
        """The options of the best trial."""
        return adjusted(self.base, self.best.values)

    @property
    def run(self) -> Path | None:
        """The run folder of the best trial; None where another machine has it."""
        path = self.out / self.best.name
        return path if path.is_dir() else None

    @property
    def command(self) -> str:
        """The command that trains the best again."""
        return shlex.join(["quickstudy", "train", *as_words(self.config), "--out", f"{self.out}-best"])

    def said(self, value: float | None) -> float | None:
        """A trial's value as it is told: an error without its minus."""
        return -value if value is not None and self.judged == "mean squared error" else value

    def json(self) -> dict[str, Any]:
        """The best, what mattered, and how many trials came to which end."""
        best, outcomes = self.best, [t.outcome for t in self.trials]
        return {
            self.judged.replace("-", "_").replace(" ", "_"): self.said(best.value),
            "ci95": best.ci95,
            "trial": best.number,
            "values": best.values,
            "command": self.command,
            "run": None if self.run is None else str(self.run),
            "importance": self.importance,
            "searched": {name: str(values) for name, values in self.space.items()},
            "trials": len(self.trials),
            **{kind: outcomes.count(kind) for kind in ("complete", "pruned", "failed", "running")},
            "config": self.config.json(),
        }

    def write(self) -> None:
        """best.json, trials.json and trials.csv in the search's folder; best.json where there is a best."""
        if self.ranked:
            write_json(self.out / "best.json", self.json())
        write_json(self.out / "trials.json", [asdict(t) for t in self.trials])
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["trial", "outcome", self.judged, "ci95", *self.space, "seconds", "why"])
        for t in self.trials:
            own = [t.values.get(name) for name in self.space]
            table.writerow([t.number, t.outcome, self.said(t.value), t.ci95, *own, t.seconds, t.why])
        write_bytes(self.out / "trials.csv", text.getvalue().encode())

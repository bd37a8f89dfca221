"""Accuracy by presentation of a class in a stream: the table of Santoro et al. 2016, arXiv 1605.06065.

Streams of 50 of Omniglot's pictures, ten of each of five classes. The authors' nets read 20 × 20 pixels as
they are; here also behind a convolutional body, which is what most would use.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from quickstudy.evaluation import by_presentation
from quickstudy.evaluation.evaluate import SEED
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.session import load_splits, threads
from quickstudy.recipes.parts import PartsRecipe
from quickstudy.recipes.recipe import Setting, about, trained

Body = Literal["flatten", "conv4"]
PAPER = {
    "mann": {1: 36.4, 2: 82.8, 3: 91.0, 4: 92.6, 5: 94.9, 10: 98.1},
    "lstm": {1: 24.4, 2: 49.5, 3: 55.3, 4: 61.0, 5: 63.6, 10: 62.5},
}
"""Percent, by presentation."""
BODIES: dict[Body, dict[str, Any]] = {"flatten": {"size": 20}, "conv4": {"channels": 32}}
ITERATIONS = {"mann/flatten": 18_000, "lstm/flatten": 20_000, "mann/conv4": 2000, "lstm/conv4": 2000}
"""Meta-steps of each, half an hour to an hour on one core."""
STREAMS = 1000


@dataclass(frozen=True)
class Stream:
    """One learner behind one body."""

    learner: str
    body: Body

    @property
    def name(self) -> str:
        """What `--only` calls it.

        >>> Stream("mann", "flatten").name
        'mann/flatten'
        """
        return f"{self.learner}/{self.body}"


@dataclass(frozen=True)
class PresentationsRecipe(PartsRecipe[Stream]):
    """Memory-augmented nets and plain LSTMs, on streams of unseen classes; 16 streams a meta-step."""

    title: str = "Omniglot by presentation, streams of 5 classes ten times each: MANN, LSTM"
    source: str = "Santoro et al. 2016, arXiv 1605.06065, table 1, one-hot labels"

    def rows(self, part: Stream, out: Path, setting: Setting) -> list[dict[str, Any]]:
        """One row for each presentation."""
        config = TrainConfig(
            data="omniglot",
            data_dir=setting.data_dir,
            learner=part.learner,
            body=part.body,
            query=9,
            train_query=9,
            validation_tasks=100,
            threads=1,
            iterations=ITERATIONS[part.name],
            **BODIES[part.body],
        )
        learner, config, run = trained(config, out, part.name)
        source = config.problem(load_splits(config, run).test, seed=SEED)
        with threads(1):
            found = by_presentation(learner, source, setting.tasks or STREAMS, progress=True)
        told = {"part": part.name, **asdict(part), **about(learner, run), "tasks": found.tasks}
        return [
            {**told, "presentation": k, "accuracy": a, "ci95": ci95, "paper": PAPER[part.learner].get(k)}
            for k, (a, ci95) in enumerate(zip(found.accuracy, found.ci95, strict=True), 1)
        ]


def streams() -> tuple[Stream, ...]:
    """Every learner that reads a stream, behind every body."""
    return tuple(Stream(learner, body) for body in BODIES for learner in PAPER)

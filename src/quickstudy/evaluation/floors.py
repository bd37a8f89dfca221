"""The floors beside a result: what one would do without meta-learning, on the same tasks."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from quickstudy.data import Splits
from quickstudy.evaluation.evaluate import Evaluation, evaluate
from quickstudy.evaluation.search import apply, choose_settings
from quickstudy.learners import CONTROLS, Learner, learner_class
from quickstudy.outer.atomic import write_json
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.meta_train import meta_train
from quickstudy.outer.progress import Bar
from quickstudy.tasks import ClassTasks


@dataclass(frozen=True)
class Floor:
    """One control: its accuracy, the settings chosen for it on meta-validation, seconds it took."""

    name: str
    accuracy: float
    ci95: float
    tasks: int
    chosen: dict[str, Any]
    seconds: float

    def json(self) -> dict[str, Any]:
        """The row as JSON."""
        return dataclasses.asdict(self)


def floors(
    config: TrainConfig,
    splits: Splits,
    *,
    source: ClassTasks,
    names: tuple[str, ...] = tuple(CONTROLS),
    n_tasks: int = 1000,
    search_tasks: int = 50,
    pretrain_iterations: int | None = None,
    cache: Path | None = None,
    progress: bool = False,
) -> list[Floor]:
    """Measure the controls on the tasks a learner was measured on, with its body.

    Rates and steps are chosen on meta-validation; the two pretrained controls share one pretrained body.

    Args:
        config: the learner's run; body, normalisation and seed are taken from it.
        source: meta-test tasks.
        names: which controls.
        search_tasks: meta-validation tasks for each setting tried.
        pretrain_iterations: steps of pretraining on batches of 128; by default the run's meta-steps.
        cache: a folder where rows are kept, so that a second call is quick.
        progress: show bars on standard error.
    """
    rows: list[Floor] = []
    pretrained: Learner | None = None
    key = json.dumps(
        [source.describe(), n_tasks, search_tasks, pretrain_iterations, config.json()], default=str
    )
    for name in names:
        kept = _kept(cache, name, key)
        if kept is not None:
            rows.append(kept)
            continue
        begun = time.monotonic()
        changes = {"learner": name, "settings": {}, "way": int(_most(source.way))}
        control = dataclasses.replace(config, **changes)  # type: ignore[arg-type]
        learner = control.make_learner(splits.train.image_shape, len(splits.train))
        if learner_class(name).trains_on == "batches":
            if pretrained is None:
                pretrained = _pretrain(control, splits, learner, pretrain_iterations, progress)
            _body(learner).load_state_dict(_body(pretrained).state_dict())
        # As on meta-test where meta-validation has enough classes, else as the run was validated.
        way = source.way if _most(source.way) <= len(splits.val) else config.way
        validation = ClassTasks(splits.val, way, source.shot, source.query, seed=1)
        chosen, _ = choose_settings(learner, validation, search_tasks)
        apply(learner, chosen)
        result: Evaluation = evaluate(learner, source, n_tasks, progress=progress)
        assert result.accuracy is not None
        row = Floor(name, result.accuracy, result.ci95, n_tasks, chosen, round(time.monotonic() - begun, 1))
        rows.append(row)
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)
            write_json(cache / f"{name}.json", {"key": key, "row": row.json()})
    return rows


def _most(count: int | tuple[int, int]) -> int:
    return count if isinstance(count, int) else count[1]


def _kept(cache: Path | None, name: str, key: str) -> Floor | None:
    if cache is None:
        return None
    try:
        saved = json.loads((cache / f"{name}.json").read_bytes())
        return Floor(**saved["row"]) if saved["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _body(learner: Learner) -> Any:
    net = getattr(learner, "net", None)
    return net.body if net is not None else learner.body


def _pretrain(
    control: TrainConfig, splits: Splits, learner: Learner, iterations: int | None, progress: bool
) -> Learner:
    meta_train(
        learner,
        control.training_tasks(splits.train),
        iterations=iterations or control.iterations,
        seed=control.seed,
        progress=Bar("pretraining the controls") if progress else None,
    )
    return learner


def floors_table(rows: list[Floor], learner: tuple[str, Evaluation] | None = None) -> Table:
    """The rows as a table, the learner's own last."""
    table = Table("", "accuracy ± 95 %", "chosen on meta-validation")
    for row in rows:
        chosen = ", ".join(f"{k.replace('_', '-')} {v:g}" for k, v in row.chosen.items())
        table.add_row(row.name, f"{100 * row.accuracy:.1f} ± {100 * row.ci95:.1f} %", chosen)
    if learner is not None:
        name, result = learner
        table.add_section()
        table.add_row(
            name, f"{100 * (result.accuracy or 0):.1f} ± {100 * result.ci95:.1f} %", result.mode, style="bold"
        )
    return table

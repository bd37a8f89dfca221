"""A recipe: an experiment that is trained, measured and written down with what made it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from quickstudy.data import Splits
from quickstudy.errors import RunError, UserError
from quickstudy.evaluation.evaluate import SEED, Evaluation, evaluate, normalising
from quickstudy.evaluation.floors import FLOORS, Floor, digest, floors
from quickstudy.evaluation.search import choose_settings
from quickstudy.learners import Learner
from quickstudy.outer import meta_train
from quickstudy.outer.checkpoint import BEST
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.progress import Bar
from quickstudy.outer.provenance import commit, environment, forget_peak
from quickstudy.outer.run_folder import ENVIRONMENT, RunFolder
from quickstudy.outer.session import SUMMARY, load_splits, spent_on, train, with_steps_taken
from quickstudy.tasks import TaskSource
from quickstudy.version import __version__

SEARCH = 200
"""Meta-validation tasks for each setting that is tried, the learner's as the controls'."""
FLOOR_TASKS = 600
"""Meta-test tasks of the controls: the first of the learner's."""


@dataclass(frozen=True)
class Setting:
    """Where a recipe runs.

    Args:
        name: the recipe's.
        runs: the folder of run folders; an interrupted recipe goes on from them.
        tasks: test tasks instead of the recipe's own number.
        floors: whether the controls are measured too.
        only: of a recipe of many parts only these.
        data_dir: where data lies.
        before: a file of this recipe's results; what it holds of parts that are not run now is kept.
    """

    name: str
    runs: Path = Path("runs")
    tasks: int | None = None
    floors: bool = True
    data_dir: Path | None = None
    only: tuple[str, ...] = ()
    before: Path | None = None

    def __post_init__(self) -> None:
        if self.tasks is not None and self.tasks < 2:
            raise UserError(f"tasks must be at least 2 for an interval, not {self.tasks}")

    @property
    def command(self) -> str:
        """What to type for the same numbers."""
        words = ["QUICKSTUDY_DATA=DIR quickstudy recipe run", self.name]
        words += [] if self.tasks is None else [f"--tasks {self.tasks}"]
        words += [] if self.floors else ["--no-floors"]
        words += ["--only", *self.only] if self.only else []
        return " ".join(words)


class Experiment(Protocol):
    """What `quickstudy recipe` lists and runs."""

    @property
    def title(self) -> str: ...
    @property
    def source(self) -> str: ...
    def run(self, setting: Setting) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Measure:
    """One number to measure.

    Args:
        way, shot, query: of the test tasks; None is the config's.
        statistics: the normalisation mode; None is the run's own.
        search: choose inner steps and rate on meta-validation instead of taking those of meta-training.
        paper: the published accuracy in percent.
        target: what a run here should reach, in percent.
        tasks: how many test tasks.
    """

    way: int | None = None
    shot: int | None = None
    query: int | None = None
    statistics: str | None = None
    search: bool = False
    paper: float | None = None
    target: float | None = None
    tasks: int = 1000


@dataclass(frozen=True)
class Recipe:
    """Few-shot classification: how to train, what to measure.

    Args:
        title: what it shows.
        source: where the published number stands.
        config: the run.
        measures: the numbers.
        seeds: one run for each.
    """

    title: str
    source: str
    config: TrainConfig
    measures: tuple[Measure, ...]
    seeds: tuple[int, ...] = (0,)

    def run(self, setting: Setting) -> dict[str, Any]:
        """Train every seed, measure every number, and the floors once."""
        rows: list[dict[str, Any]] = []
        floor_rows: list[Floor] = []
        seconds = 0.0
        for seed in self.seeds:
            config = dataclasses.replace(self.config, seed=seed, data_dir=setting.data_dir)
            out = setting.runs / (setting.name if len(self.seeds) == 1 else f"{setting.name}-{seed}")
            learner, config, run = trained(config, out, f"{setting.name}, seed {seed}")
            told = about(learner, run)
            seconds += told["training_seconds"]
            splits = load_splits(config, run)
            for m in self.measures:
                asked = {"train_seed": seed, "paper": m.paper, "target": m.target}
                found = measured(m, run, splits, setting)
                rows.append({**found, **asked, "trained_at": told["trained_at"]})
            if setting.floors and seed == self.seeds[0]:
                floor_rows = floors(
                    with_steps_taken(config, run),
                    splits,
                    source=config.problem(splits.test, seed=SEED),
                    n_tasks=min(setting.tasks or FLOOR_TASKS, FLOOR_TASKS),
                    search_tasks=SEARCH,
                    cache=out / FLOORS,
                    progress=True,
                )
        return {
            **provenance(setting),
            "title": self.title,
            "published": self.source,
            "seeds": list(self.seeds),
            "training_seconds": round(seconds, 1),
            "config": self.config.json(),
            "results": rows,
            "floors": [row.json() for row in floor_rows],
        }


def measured(m: Measure, run: RunFolder, splits: Splits, setting: Setting) -> dict[str, Any]:
    """One measurement of a run, and the settings that were searched for it, as JSON; kept in the run folder,
    so that a recipe that was interrupted goes on after it."""
    weights = run.digest(BEST)
    asked = dataclasses.replace(m, paper=None, target=None, tasks=setting.tasks or m.tasks)
    key = digest(dataclasses.asdict(asked), weights, splits.val.fingerprint(), splits.test.fingerprint())
    name = f"measured/{key}-{__version__}.json"
    if (run.path / name).is_file():
        return run.read_json(name)
    result, chosen = measure_anew(asked, run, splits, setting)
    found = {**result.json(), "chosen": chosen}
    (run.path / name).parent.mkdir(exist_ok=True)
    run.write_json(name, found)
    return found


def measure_anew(
    m: Measure, run: RunFolder, splits: Splits, setting: Setting
) -> tuple[Evaluation, dict[str, Any]]:
    """One measurement of a run, and the settings that were searched for it."""
    learner, config, _ = load_run(run.path, setting.data_dir)  # with the settings of meta-training
    asked = {"way": m.way, "shot": m.shot, "query": m.query}
    changes = {k: v for k, v in asked.items() if v is not None}
    strategy = run.config.get("strategy")
    chosen: dict[str, Any] = {}
    if m.search:
        with normalising(learner, m.statistics):
            validation = config.problem(splits.val, **changes)
            chosen, _ = choose_settings(learner, validation, SEARCH, strategy=strategy, progress=True)
    result = evaluate(
        learner,
        config.problem(splits.test, seed=SEED, **changes),
        m.tasks,
        statistics=m.statistics,
        strategy=strategy,
        progress=True,
    )
    return result, chosen


def trained(config: TrainConfig, out: Path, title: str) -> tuple[Learner, TrainConfig, RunFolder]:
    """A run's learner, its options and its folder: trained now, gone on with, or finished before."""
    train(config, out, resume=True, progress=Bar(title))
    return load_run(out, config.data_dir)


def trained_on(
    training: TaskSource,
    learner: Learner,
    out: Path,
    told: Mapping[str, Any],
    title: str,
    *,
    validation: TaskSource,
    **options: Any,
) -> RunFolder:
    """The same for tasks that no command line names: `meta_train`, with its options, in a run folder.

    Args:
        told: what the run is of, kept in the folder.

    Raises:
        RunError: the folder holds another run.
    """
    run = RunFolder.open(out) if (out / "config.json").exists() else RunFolder.create(out, told)
    if {k: run.config.get(k) for k in told} != told:
        raise RunError(f"{out} holds another run: remove it, or choose another folder with --runs")
    if not run.finished:
        forget_peak()
    with run.claimed():
        history = meta_train(
            learner, training, validation=validation, run=run, progress=Bar(title), **options
        )
    if not run.finished:
        run.write_json(SUMMARY, spent_on(history))
    return run


def about(learner: Learner, run: RunFolder) -> dict[str, Any]:
    """What a row says of a run: its size, what its training took, the commit it was trained at."""
    spent = run.read_json(SUMMARY)
    return {
        "parameters": sum(p.numel() for p in learner.parameters()),
        "iterations": run.config["iterations"],
        "training_seconds": spent["seconds"],
        "core_seconds": spent.get("core_seconds"),  # nor these
        "training_mb": spent.get("peak_memory_mb"),  # recipes of before kept none
        "trained_at": run.read_json(ENVIRONMENT).get("commit"),
    }


def provenance(setting: Setting) -> dict[str, Any]:
    """What made a result: the command, the commit it was measured at, the environment."""
    return {
        "recipe": setting.name,
        "command": setting.command,
        "commit": commit(),
        "environment": environment(),
    }

"""What a report tells of a run: measured once, and kept in the run folder."""

from __future__ import annotations

import json
import shlex
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quickstudy.data import ClassDataset, Splits
from quickstudy.errors import RunError, TaskError
from quickstudy.evaluation.evaluate import SEED, Evaluation, evaluate
from quickstudy.evaluation.floors import FLOORS, Floor, digest, floors, kept
from quickstudy.evaluation.function_floors import function_floors
from quickstudy.evaluation.scores import Calibration, Confusion
from quickstudy.learners import CONTROLS, Learner
from quickstudy.outer.checkpoint import BEST
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.load_run import load_run
from quickstudy.outer.run_folder import ENVIRONMENT, RunFolder
from quickstudy.outer.session import SUMMARY, load_splits
from quickstudy.outer.words import as_words
from quickstudy.tasks import ClassTasks
from quickstudy.tasks.families import FunctionParts, Functions
from quickstudy.tasks.regression import FunctionTasks
from quickstudy.version import __version__

WAYS, SHOTS = (2, 5, 10, 20), (1, 5, 10)
"""Of the heat map."""
WORST = 3
QUICK = ("pixel-nn", "untrained")
"""The controls that a report measures itself: nothing of them is trained."""
ADAPTED = 11
"""Tasks by which the time to adapt is told, the first not counted."""


@dataclass(frozen=True)
class Subject:
    """A run, and what was measured of it.

    Args:
        name: of its folder, made longer where two are alike.
        run, config, learner: as of `load_run`.
        unseen: the classes, or the functions, of meta-test.
        measured: the evaluation as JSON, with "by_task", each task's accuracy, "bins" and "confusion"; of
            functions errors in place of accuracies.
        grid: by (way, shot) accuracy and half its interval, or why there is none; of functions, the way
            being 1, the error.
        cells: tasks of each cell of the grid.
        floors: the controls on such tasks, those that are trained where `evaluate --floors` left them.
        adapt_ms: the median time to adapt to a task.
    """

    name: str
    run: RunFolder
    config: TrainConfig
    learner: Learner
    unseen: ClassDataset | Functions
    measured: dict[str, Any]
    grid: dict[tuple[int, int], tuple[float, float] | str]
    cells: int
    floors: list[Floor]
    adapt_ms: float

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of its metrics.jsonl."""
        return list(self.run.records())

    @property
    def tasks(self) -> ClassTasks | FunctionTasks:
        """The tasks it was measured on."""
        return self.config.problem(self.unseen, seed=SEED)

    @property
    def calibration(self) -> Calibration | None:
        """The bins of the evaluation."""
        return Calibration(*self.measured["bins"]) if self.measured["bins"] else None

    @property
    def confusion(self) -> Confusion:
        """How often each class was taken for which."""
        found: Confusion = self.measured["confusion"]
        return found

    @property
    def worst(self) -> list[int]:
        """The numbers of the tasks with the lowest accuracies, or highest errors, the worst first."""
        sign = -1 if self.config.functions else 1
        found = [sign * value for value in self.measured["by_task"]]
        return sorted(range(len(found)), key=lambda i: (found[i], i))[:WORST]

    @property
    def spent(self) -> dict[str, Any]:
        """Seconds and memory of training; empty for a run that has not come to its end."""
        return self.run.read_json(SUMMARY) if self.run.finished else {}

    @property
    def commit(self) -> str | None:
        """Of the library, when it was trained."""
        found = self.run.read_json(ENVIRONMENT).get("commit")
        return None if found is None else str(found)

    @property
    def place(self) -> str:
        """Its folder as it was named; but of the folders of a machine only the last."""
        path = self.run.path
        return f"runs/{path.name}" if path.is_absolute() or ".." in path.parts else path.as_posix()

    @property
    def commands(self) -> list[str]:
        """What to type for the same run and the same number."""
        train = ["quickstudy", "train", *as_words(self.config), "--out", self.place]
        tasks = ["--tasks", str(self.measured["tasks"])]
        return [shlex.join(train), shlex.join(["quickstudy", "evaluate", self.place, *tasks])]

    @property
    def group(self) -> str:
        """What runs share that differ in their seed only."""
        return digest({**self.config.json(), "seed": None}, self.unseen.fingerprint())

    def comparable(self, other: Subject) -> str | None:
        """Why two runs cannot be compared task by task; None where they can."""
        if self.unseen.fingerprint() != other.unseen.fingerprint():
            return "other meta-test classes or functions"
        if self.tasks.describe() != other.tasks.describe():
            return "other tasks"
        return None


def subjects(
    paths: Sequence[str | Path],
    n_tasks: int,
    n_grid: int,
    data_dir: Path | None = None,
    device: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Subject]:
    """Measure runs, or take what was kept of them.

    Args:
        paths: run folders.
        n_tasks: meta-test tasks for each.
        n_grid: tasks for each cell of way and shot; 0 measures none.
        data_dir, device: as of `load_run`.
        say: told what is done.

    Raises:
        RunError: one of them is no run folder, or is damaged.
    """
    folders = list(dict.fromkeys(Path(path).resolve() for path in paths))  # each run once
    names = list(distinct(folders))
    return [
        subject(name, path, n_tasks, n_grid, data_dir, device, say)
        for name, path in zip(names, folders, strict=True)
    ]


def distinct(paths: Sequence[Path]) -> Iterator[str]:
    """Names of folders, with their parents' where two are alike.

    >>> list(distinct([Path("/runs/a"), Path("/runs/b"), Path("/old/a")]))
    ['runs/a', 'b', 'old/a']
    """
    for path in paths:
        alike = sum(other.name == path.name for other in paths) > 1
        yield "/".join(path.parts[-2:]) if alike else path.name


def subject(
    name: str,
    path: Path,
    n_tasks: int,
    n_grid: int,
    data_dir: Path | None,
    device: str | None,
    say: Callable[[str], None],
) -> Subject:
    """One run; see `subjects`."""
    learner, config, run = load_run(path, data_dir, device)
    parts: Splits | FunctionParts = config.parts() if config.functions else load_splits(config, run)
    unseen = parts.test
    here = run.digest(BEST), unseen.fingerprint()
    told: list[str] = []
    tasks = config.problem(unseen, seed=SEED)

    def once(source: ClassTasks | FunctionTasks, count: int) -> dict[str, Any]:
        """An evaluation, of before or now."""
        file = f"reports/{digest(*here, source.describe(), count, __version__)}.json"
        if (run.path / file).is_file():
            return run.read_json(file)
        if not told:
            told.append(name)
            say(f"measuring {name}")
        try:
            result = evaluate(learner, source, count, strategy=run.config.get("strategy"), progress=True)
            bins = None if result.calibration is None else list(result.calibration)
            own = {"mode": result.mode, "by_task": list(result.by_task), "bins": bins}
            found = {**result.json(), **own, "confusion": result.confusion}
        except TaskError as error:  # a head of fewer ways
            found = {"why": str(error)}
        try:
            (run.path / file).parent.mkdir(exist_ok=True)
            run.write_json(file, found)
        except (OSError, RunError) as error:
            say(f"nothing kept: {error}")
        return found

    grid: dict[tuple[int, int], tuple[float, float] | str] = {}
    ways = (1,) if config.functions else WAYS
    for way in ways if n_grid else ():
        for shot in SHOTS:
            of_classes = {} if config.functions else {"way": way, "query": None}
            try:
                cell = once(config.problem(unseen, seed=SEED, shot=shot, **of_classes), n_grid)
                what = "loss" if config.functions else "accuracy"
                grid[way, shot] = cell.get("why") or (cell[what], cell["ci95"])
            except TaskError as error:  # not so many classes or examples
                grid[way, shot] = str(error)
    measured = once(tasks, n_tasks)
    if isinstance(parts, Splits) and isinstance(tasks, ClassTasks):
        try:
            floors(config, parts, source=tasks, names=QUICK, n_tasks=n_tasks, cache=run.path / FLOORS)
        except RunError as error:
            say(f"no floors: {error}")
    return Subject(
        name=name,
        run=run,
        config=config,
        learner=learner,
        unseen=unseen,
        measured=measured,
        grid=grid,
        cells=n_grid,
        floors=known_floors(run, tasks, measured)
        if isinstance(tasks, ClassTasks)
        else simple_answers(tasks, n_tasks),
        adapt_ms=adapting(learner, tasks),
    )


def known_floors(run: RunFolder, tasks: ClassTasks, measured: Mapping[str, Any]) -> list[Floor]:
    """What was kept of the controls on the same tasks, each control once, the one on most of them; none that
    looked at the other queries where the run does not."""
    told = {k: v for k, v in tasks.describe().items() if k != "classes"}
    found: dict[str, Floor] = {}
    for path in (run.path / FLOORS).glob("*.json"):
        row = kept(path)
        if row is None:
            continue
        e = row.evaluation
        theirs = {"data": e.data, "way": e.way, "shot": e.shot, "query": e.query, "seed": e.seed, **e.drawn}
        if json.dumps(theirs, sort_keys=True) != json.dumps(told, sort_keys=True):
            continue
        if e.transductive and not measured["transductive"]:
            continue
        if row.name not in found or row.evaluation.tasks > found[row.name].evaluation.tasks:
            found[row.name] = row
    return [found[name] for name in CONTROLS if name in found]


def simple_answers(tasks: FunctionTasks, n_tasks: int) -> list[Floor]:
    """What answers to functions are worth for which nothing is learned."""
    found = []
    for name, m in function_floors(tasks, n_tasks).items():
        result = Evaluation(
            accuracy=None,
            loss=m.mean("loss"),
            ci95=m.ci95("loss"),
            tasks=n_tasks,
            transductive=False,
            shot=tasks.shot,
            metrics={k: m.mean(k) for k in m.values if k != "loss"},
        )
        found.append(Floor(name, result, {}, 0.0))
    return found


def adapting(learner: Learner, tasks: ClassTasks | FunctionTasks) -> float:
    """The median time to adapt to a task, in milliseconds."""
    times = []
    for i in range(ADAPTED):
        support = tasks.task(i).support
        begun = time.perf_counter()
        learner.adapt(support)
        if any(p.is_cuda for p in learner.parameters()):
            torch.cuda.synchronize()  # until here the GPU has only been told what to do
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times[1:])

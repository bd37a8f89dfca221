"""The floors beside a result: what one would do without meta-learning, on the same tasks."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from quickstudy.data import Splits
from quickstudy.errors import RunError, TaskError
from quickstudy.evaluation.evaluate import Evaluation, evaluate, normalising
from quickstudy.evaluation.scores import Calibration
from quickstudy.evaluation.search import choose_settings
from quickstudy.files import write_json
from quickstudy.learners import CONTROLS, Learner, learner_class
from quickstudy.nets.norm import Norm
from quickstudy.outer.checkpoint import BEST
from quickstudy.outer.config import USUAL, TrainConfig
from quickstudy.outer.meta_train import meta_train
from quickstudy.outer.progress import Bar
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.start import body
from quickstudy.outer.tensor_file import checksum
from quickstudy.tasks import ClassTasks, SupervisedBatches
from quickstudy.tasks.sampler import FrozenTasks
from quickstudy.version import __version__

FLOORS = "floors"
"""The folder of a run where `evaluate` and `demo` keep its floors."""
PRETRAINING_BATCH = SupervisedBatches.size
SIZES = ("way", "shot", "query")
MATTERS = ("body", "channels", "norm", "seed", "augment", *SIZES, "validate_every", "validation_tasks")
"""The options of a run that its floors depend on, beside the data."""


@dataclass(frozen=True)
class Floor:
    """One control.

    Args:
        evaluation: what it reached.
        chosen: its settings, the best on meta-validation.
        seconds: what it took, pretraining included.
    """

    name: str
    evaluation: Evaluation
    chosen: dict[str, Any]
    seconds: float

    def json(self) -> dict[str, Any]:
        """The row as JSON: name, chosen settings and seconds beside the evaluation's numbers."""
        own = {"name": self.name, "chosen": self.chosen, "seconds": round(self.seconds, 1)}
        return {**own, **self.evaluation.json()}


def floors(
    config: TrainConfig,
    splits: Splits,
    *,
    source: ClassTasks | FrozenTasks,
    names: Sequence[str] = tuple(CONTROLS),
    n_tasks: int = 1000,
    statistics: str | None = None,
    search_tasks: int = 50,
    pretrain_iterations: int | None = None,
    cache: Path | None = None,
    progress: bool = False,
    say: Callable[[Floor], None] = lambda row: None,
) -> list[Floor]:
    """Measure the controls on the tasks a learner was measured on, with its body.

    Rates and steps are chosen on meta-validation. The pretrained controls share one body, pretrained on the
    meta-train classes and, like a learner's, that of the best meta-validation.

    Args:
        config: the learner's run; body, normalisation and seed are taken from it.
        splits: the classes to pretrain and to choose on.
        source: meta-test tasks.
        names: which controls.
        n_tasks: meta-test tasks.
        statistics: normalise by "support", "running" or "batch" statistics instead of the run's own way.
        search_tasks: meta-validation tasks for each setting tried.
        pretrain_iterations: steps of pretraining; by default it sees as many pictures as the learner did.
        cache: a folder where rows and the pretrained body are kept: a second call is quick, and one that was
            interrupted goes on.
        progress: show bars on standard error.
        say: called with each row as it is found.

    Raises:
        UserError: an unknown control.
        RunError: the cache cannot be written to.

    Example:
        >>> rows = floors(config, splits, source=config.problem(splits.test))  # doctest: +SKIP
    """
    for name in names:
        learner_class(name)  # there is one
    if cache is not None:
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {cache}: {error.strerror or error}") from error
    told = source.describe()
    iterations = equal_pictures(config, splits) if pretrain_iterations is None else pretrain_iterations
    matters = {**{k: getattr(config, k) for k in MATTERS}, "pretrained norm": pretrained_norm(config)}
    base = [splits.train.fingerprint(), splits.val.fingerprint(), matters]
    # Tells tasks apart that are described alike.
    asked = checksum(source.batch(np.arange(min(2, n_tasks))).tensors())
    pretraining = Pretraining(
        config, splits, iterations, cache and cache / f"body-{digest(base, iterations)}"
    )
    key = digest(base, iterations, told, asked, n_tasks, search_tasks, statistics, __version__)
    rows: list[Floor] = []
    for name in names:
        row = None if cache is None else kept(cache / f"{name}-{key}.json")
        if row is None:
            row = measure_control(
                name, config, splits, source, pretraining, n_tasks, statistics, search_tasks, progress
            )
            if cache is not None:
                write(cache / f"{name}-{key}.json", row)
        rows.append(row)
        say(row)
    return rows


def measure_control(
    name: str,
    config: TrainConfig,
    splits: Splits,
    source: ClassTasks | FrozenTasks,
    pretraining: Pretraining,
    n_tasks: int,
    statistics: str | None,
    search_tasks: int,
    progress: bool,
) -> Floor:
    """Make one control, choose its settings, measure it; see `floors`."""
    begun, seconds, told = time.monotonic(), 0.0, source.describe()
    control = config_of(name, config, most(told["way"]))
    learner = control.make_learner(splits.train.image_shape, len(splits.train))
    if learner.trains_on == "batches":
        weights, seconds = pretraining.body(progress)
        begun = time.monotonic()
        body(learner).load_state_dict(weights)
    # A control whose body was never trained has no running averages: it normalises in its own way.
    with normalising(learner, statistics if statistics in learner.modes else None):
        validation = as_solved(config, splits, told)
        chosen, _ = choose_settings(learner, validation, search_tasks, progress=progress)
        result = evaluate(learner, source, n_tasks, progress=progress)
    return Floor(name, result, chosen, seconds + time.monotonic() - begun)


def config_of(name: str, config: TrainConfig, way: int, **settings: Any) -> TrainConfig:
    """A control's options beside a run's."""
    own: dict[str, Any] = {"learner": name, "settings": settings, "way": way}
    if learner_class(name).trains_on == "batches":
        own["norm"] = pretrained_norm(config)
    return dataclasses.replace(config, **own)


def kept_control(
    name: str, run: RunFolder, way: int, device: str | None = None
) -> tuple[Learner, TrainConfig] | None:
    """A control as `floors` left it in the run's folder `floors`: its body, and the settings that were chosen
    last, or its usual ones; and its options. None where its body has to be pretrained first.

    Args:
        way: classes it is to answer.
        device: as of `load_run`.

    Raises:
        RunError: what is kept is damaged.

    Example:
        >>> kept_control("pretrain-finetune", RunFolder.open("runs/demo"), way=5)  # doctest: +SKIP
    """
    shape, classes = tuple(run.config["pictures"]["shape"]), run.config["classes"]
    rows = sorted((run.path / FLOORS).glob(f"{name}-*.json"), key=lambda path: path.stat().st_mtime)
    known = [row for path in rows if (row := kept(path)) is not None]
    chosen = known[-1].chosen if known else {}
    config = TrainConfig.from_json(run.config, device=device)
    config = config_of(name, config, way, **chosen)
    learner = config.make_learner(shape, classes)
    if learner.trains_on == "batches":
        bodies = [RunFolder(path) for path in (run.path / FLOORS).glob("body-*")]
        done = [folder for folder in bodies if over(folder)]
        if not done:
            return None
        last = max(done, key=lambda folder: (folder.path / BEST).stat().st_mtime)  # the one of those settings
        pretrained = TrainConfig.from_json(last.config, device=device).make_learner(shape, classes)
        pretrained.load_state_dict(last.load(BEST)[0])
        body(learner).load_state_dict(body(pretrained).state_dict())
    learner.eval()
    return learner, config


def over(pretraining: RunFolder) -> bool:
    """Whether a pretraining has come to its end."""
    if pretraining.vacant:
        return False
    last = max((record["iteration"] for record in pretraining.records()), default=0)
    return bool(last >= pretraining.config["iterations"])


def equal_pictures(config: TrainConfig, splits: Splits) -> int:
    """The steps of pretraining in which it sees as many pictures as the run's learner in meta-training, and
    as the run did that it was started from."""
    source, before = config.plain_tasks(splits.train), 0
    if config.start is not None:
        before = equal_pictures(TrainConfig.from_json(RunFolder.open(config.start).config), splits)
    pictures = PRETRAINING_BATCH
    if isinstance(source, ClassTasks):
        pictures = most(source.way) * (most(source.shot) + most(source.query or 0))
    return before + math.ceil(config.iterations * (config.meta_batch or 1) * pictures / PRETRAINING_BATCH)


def pretrained_norm(config: TrainConfig) -> Norm | None:
    """How a pretrained control normalises: where the run does so by support sets, of which pretraining has
    none, as pretrained nets usually do; else as the run, so that a transductive one is beside its like."""
    return "running" if config.norm == "support" else config.norm


class Pretraining:
    """A body trained to tell the meta-train classes apart: trained when first asked for, once.

    Args:
        folder: where it is kept; a run folder, so that an interrupted pretraining goes on.
    """

    def __init__(self, config: TrainConfig, splits: Splits, iterations: int, folder: Path | None) -> None:
        every = config.validate_every  # as often as in the run
        if every is not None:
            every = max(1, every * iterations // max(1, config.iterations))
        # As the control that is quickly validated: no fine-tuning, the nearest class mean.
        own: dict[str, Any] = dict.fromkeys((*USUAL, "clip", "patience"))
        own |= {"learner": "pretrain-centroid", "settings": {}, "start": None}
        own |= {"norm": pretrained_norm(config)}
        own |= {"iterations": iterations, "validate_every": every}
        self.config = dataclasses.replace(config, **own)
        self.splits, self.folder = splits, folder
        self.done: tuple[dict[str, Tensor], float] | None = None

    def body(self, progress: bool) -> tuple[dict[str, Tensor], float]:
        """The body's weights, best on meta-validation, and the seconds it took."""
        if self.done is None:
            train = self.splits.train
            learner = self.config.make_learner(train.image_shape, len(train))
            run = None if self.folder is None else RunFolder(self.folder)
            if run is not None and run.vacant:
                run = RunFolder.create(run.path, self.config.json())
            with run.claimed() if run is not None else nullcontext():
                history = meta_train(
                    learner,
                    self.config.training_tasks(train),
                    validation=self.config.problem(self.splits.val),
                    run=run,
                    progress=Bar("pretraining for the controls") if progress else None,
                    **self.config.outer(),
                )
            self.done = body(learner).state_dict(), history.seconds
        return self.done


def as_solved(config: TrainConfig, splits: Splits, told: dict[str, Any]) -> ClassTasks:
    """Meta-validation tasks as on meta-test, or where the classes do not allow them, as in the run."""
    own = {"data", "classes", "seed"}
    options: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in told.items() if k not in own
    }
    try:
        return ClassTasks(splits.val, seed=1, **options)
    except TaskError:
        return config.problem(splits.val)


def most(count: Any) -> int:
    """The number, or the highest of a range."""
    return count if isinstance(count, int) else max(count)


def digest(*parts: Any) -> str:
    """16 hex digits that change with any of these values."""
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=8).hexdigest()


def write(path: Path, row: Floor) -> None:
    """Keep a row, without confusions and tasks; not one with numbers JSON has no word for."""
    bare = dataclasses.replace(row, evaluation=dataclasses.replace(row.evaluation, confusion={}, by_task=()))
    with contextlib.suppress(ValueError):
        write_json(path, dataclasses.asdict(bare))


def kept(path: Path) -> Floor | None:
    """A row that was kept; None where there is none that can be read."""
    try:
        row = json.loads(path.read_bytes())
        numbers = row["evaluation"]
        numbers["calibration"] = Calibration(*numbers["calibration"])
        return Floor(**{**row, "evaluation": Evaluation(**numbers)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def floors_table(rows: Sequence[Floor], learner: tuple[str, Evaluation] | None = None) -> Table:
    """The rows as a table, a learner's own (its name and what it reached) last.

    Example:
        >>> rich.print(floors_table(rows, learner=("maml", result)))  # doctest: +SKIP
    """
    table = Table("", "accuracy ± 95 %", "chosen on meta-validation", box=SIMPLE_HEAD)
    table.add_column("seconds", justify="right")

    def number(result: Evaluation) -> str:
        return f"{100 * (result.accuracy or 0):.1f} ± {100 * result.ci95:.1f} %"

    for row in rows:
        chosen = ", ".join(f"{k.replace('_', '-')} {v}" for k, v in row.chosen.items())
        table.add_row(row.name, number(row.evaluation), chosen, f"{row.seconds:.0f}")
    if learner is not None:
        table.add_section()
        table.add_row(learner[0], number(learner[1]), learner[1].mode, "", style="bold")
    return table

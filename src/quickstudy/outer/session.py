"""A training run, from options to a finished run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quickstudy.data import ClassDataset, Splits, polarity
from quickstudy.errors import DataError, RunError, UserError
from quickstudy.inner.precision import computing_in, precision_now
from quickstudy.learners import Learner
from quickstudy.nets import native
from quickstudy.outer.checkpoint import BEST, History
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.device import find_device
from quickstudy.outer.distributed import world
from quickstudy.outer.meta_train import meta_train
from quickstudy.outer.progress import Progress
from quickstudy.outer.provenance import forget_peak, peak_memory_mb
from quickstudy.outer.run_folder import RunFolder
from quickstudy.outer.start import begin_with
from quickstudy.outer.strategy import settle_strategy
from quickstudy.tasks import ClassTasks, TaskSource
from quickstudy.tasks.families import FunctionParts
from quickstudy.tasks.regression import FunctionTasks

SUMMARY = "summary.json"
SUMMED = ("iteration", "best", "best_iteration", "stopped_early", "seconds")


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    data: ClassDataset | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
    stop: Callable[[dict[str, Any]], bool] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> History:
    """Meta-train as `config` says into the folder `out`, which of many processes the first alone uses.

    Args:
        data: what to train on, instead of what is found by the name `config.data`.
        resume: go on with the run in `out` (bit for bit as if it had never stopped); begin where there is
            none; do nothing where it is finished.
        log: called with each record.
        stop: called with each record after that; training ends, as where patience runs out, if it says so.
        say: called with a line about the tasks before training begins.

    Raises:
        RunError: `out` exists without `resume`, or holds a run with other options or on other data.

    Example:
        >>> train(TrainConfig(data="glyphs", learner="protonet"), "runs/a", resume=True)  # doctest: +SKIP
    """
    run, here = RunFolder(Path(out)), world()
    saved, done = here.led(lambda: taken_up(config, run, resume))
    if done is not None:
        return History(**done)
    if saved is not None:
        config = replayed(config, run, saved)
    forget_peak()
    with threads(config.threads), computing_in(config.precision):
        splits = config.parts(data)
        learner = config.make_learner(splits.train.image_shape, class_count(splits))
        tasks, problem = config.training_tasks(splits.train), config.problem(splits.val)
        config.problem(splits.test)  # a way or shot that the test classes do not allow is told now
        if isinstance(splits, FunctionParts):
            check_regresses(config, learner, problem)
        if config.start is not None and saved is None:
            begin_with(learner, config.start, config.data, fingerprints(splits))
        begun_with = None if saved is None else saved.get("kernels", "torch")  # the first did not note theirs
        size = config.iterations * (config.meta_batch or 1)
        with native.settled(size, begun_with, say) as kernels:  # when all mistakes are told
            asked, begun_by = config.strategy or learner.outer.strategy, (saved or {}).get("strategy")
            strategy = settle_strategy(
                learner, tasks, config.meta_batch or 1, asked, config.iterations, begun_by, say
            )
            facts = facts_of(config, splits, learner, tasks, problem)
            facts |= {"kernels": kernels, "strategy": strategy}
            check_alike(facts, here.led(lambda: facts))
            for line in told(splits, tasks, problem, learner, facts):
                say(line)
            if here.leads and saved is None:
                RunFolder.create(out, {**config.json(), **facts})
            with run.claimed() if here.leads else nullcontext():
                if here.leads and saved is not None:
                    go_on(config, run, facts)
                history = meta_train(
                    learner,
                    tasks,
                    validation=problem,
                    strategy=facts["strategy"],
                    run=run,
                    progress=progress,
                    log=log,
                    stop=stop,
                    **config.outer(),
                )
                if here.leads:
                    finish(run, learner, history)
            return history


def taken_up(
    config: TrainConfig, run: RunFolder, resume: bool
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The options of the run that is there, and its `History` if nothing is left to do; else None."""
    if run.vacant:
        return None, None
    if not resume:
        raise RunError(f"{run.path} exists already: choose another --out, or go on with it by --resume")
    saved = RunFolder.open(run.path).config
    check_options(config, run)
    done = finished(run)
    if done is None or (config.iterations != saved["iterations"] and not done.stopped_early):
        return saved, None
    with run.claimed():
        run.sweep()  # it may have been stopped while its curve was drawn
    return saved, asdict(done)


def class_count(splits: Splits | FunctionParts) -> int:
    """The classes of meta-training; of functions the values that one has."""
    return 1 if isinstance(splits, FunctionParts) else len(splits.train)


def check_regresses(config: TrainConfig, learner: Learner, problem: TaskSource) -> None:
    """Refuse a learner that knows classes only."""
    try:
        learner.adapt(next(problem.batch(np.array([0])).unbatch()).support)
    except DataError as error:
        why = str(error).removeprefix("support set: ")
        raise UserError(
            f"{config.learner} cannot learn functions ({config.data}): {why}; "
            "maml, r2d2, cnp, anp, snail, transformer and others can"
        ) from error


def told(
    splits: Splits | FunctionParts,
    tasks: TaskSource,
    problem: ClassTasks | FunctionTasks,
    learner: Learner,
    facts: dict[str, Any],
) -> list[str]:
    """What a run trains on, in words."""
    computed = (
        f"tasks by strategy {facts['strategy']}; threads: {facts['threads']}; kernels: {facts['kernels']}"
        + (f"; the net computes in {precision_now()}" if precision_now() != "float32" else "")
    )
    trained = tasks.describe()
    if isinstance(splits, FunctionParts) or isinstance(problem, FunctionTasks):
        return [
            f"functions: {splits.train.name}, drawn anew in meta-training, validation and test",
            f"meta-training on {trained['shot']} points each, judged at {trained['query']} others",
            computed,
            f"validation on {problem.shot} points each, judged at {problem.query} others",
        ]
    train, counts = splits.train, "/".join(str(len(part)) for part in splits)
    shape = "x".join(map(str, train.image_shape))
    note = f" ({train.note})" if train.note else ""
    if "way" in trained:
        how = "meta-training on {way}-way {shot}-shot tasks, queries a class: {query}".format(**trained)
        how += f", unlabelled: {trained['unlabelled']}" if "unlabelled" in trained else ""
        how += f" and of {trained['distractors']} classes besides" if "distractors" in trained else ""
    else:
        how = "pretraining on ordinary batches of all classes"
    how += f"; pictures distorted: {trained['augment']}" if "augment" in trained else ""
    normalised = f"; queries normalised by {learner.statistics} statistics" if learner.norms() else ""
    return [
        f"{train.name}: {counts} meta-train/validation/test classes, examples {shape}{note}",
        f"{how}{normalised}",
        computed,
        f"validation on {problem.way}-way {problem.shot}-shot tasks, queries a class: {problem.query}",
    ]


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many processor threads; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def replayed(config: TrainConfig, run: RunFolder, saved: dict[str, Any]) -> TrainConfig:
    """The options with what a run found out about its machine when it was begun, and saved."""
    device = config.device or saved.get("device")  # the first runs did not note theirs
    try:
        find_device(device)
    except UserError as error:
        raise RunError(f"{run.path} was begun on {device}, and can go on only where there is one") from error
    return replace(config, threads=saved.get("threads"), strategy=saved.get("strategy"), device=device)


def facts_of(
    config: TrainConfig,
    splits: Splits | FunctionParts,
    learner: Learner,
    tasks: TaskSource,
    problem: ClassTasks | FunctionTasks,
) -> dict[str, Any]:
    """What a run notes beside its options: what they came to on this data and this machine."""
    train = splits.train
    shape = train.image_shape
    pictures = train.x[:2000] if isinstance(train, ClassDataset) and len(shape) == 3 else None
    return {
        "threads": torch.get_num_threads(),
        "device": find_device(config.device).type,
        "pictures": {
            "shape": list(shape),
            "polarity": None if pictures is None else polarity(pictures),
        },
        "classes": class_count(splits),
        "splits": fingerprints(splits),
        "query_used": problem.query,
        "training": tasks.describe(),
    }


def go_on(config: TrainConfig, run: RunFolder, facts: dict[str, Any]) -> None:
    """Let a run that was begun go on, to more iterations if so asked; refuse other data."""
    check_same(config, run, facts)
    saved = run.config
    if config.iterations != saved["iterations"]:
        (run.path / SUMMARY).unlink(missing_ok=True)  # not finished any more
        run.write_json("config.json", {**saved, "iterations": config.iterations})


def finish(run: RunFolder, learner: Learner, history: History) -> None:
    """Write the summary, and the weights of a control that needed no training."""
    if not (run.path / BEST).exists():
        run.save(BEST, learner.state_dict(), {"iteration": 0})
    summary = {name: getattr(history, name) for name in SUMMED}
    run.write_json(SUMMARY, {**summary, **spent_on(history)})


def spent_on(history: History) -> dict[str, float | None]:
    """What training has taken of time, and of memory in this process."""
    cores = None if history.core_seconds is None else round(history.core_seconds, 1)
    return {
        "seconds": round(history.seconds, 1),
        "core_seconds": cores,
        "peak_memory_mb": peak_memory_mb(),
    }


def check_options(config: TrainConfig, run: RunFolder) -> None:
    """Refuse to go on with a run by other options than it was begun with."""
    try:
        differing = changed(run.config, config)
    except RunError as error:
        raise RunError(f"{run.path / 'config.json'} is damaged: {error}") from error
    for name, old, new in differing:
        raise RunError(
            f"{run.path} was begun with {name}={old}, not {new}: resume it with the same options "
            "(more iterations are allowed), or choose another --out"
        )


def check_same(config: TrainConfig, run: RunFolder, facts: dict[str, Any]) -> None:
    """Refuse to go on with a run on data that changed since it was begun."""
    saved = run.config
    for name, new in json.loads(json.dumps(facts)).items():
        if name in saved and new != saved[name] and name not in ("splits", "kernels", "strategy"):
            raise RunError(f"{run.path} was begun on other data: {name} was {saved[name]}, now it is {new}")
    check_splits(config, run, facts["splits"])


def check_alike(facts: dict[str, Any], first: dict[str, Any]) -> None:
    """Refuse to train together with a first process that found other data."""
    for name in ("splits", "pictures", "query_used", "training"):
        if facts[name] != first[name]:
            raise RunError(
                f"process {world().rank} found other data than process 0 ({name}): give all machines the same"
            )


def check_splits(config: TrainConfig, run: RunFolder, now: dict[str, str]) -> None:
    """Refuse data whose classes or pictures are not those of the run."""
    then = run.config.get("splits", now)  # the first runs did not note them
    if then != now:
        parts = " and ".join(name for name in now if now[name] != then.get(name))
        raise RunError(
            f"{config.data} has changed since {run.path} was begun (other {parts} classes or pictures), so "
            "classes it was trained on may be among the unseen ones: bring the data back, or train anew"
        )


def fingerprints(splits: Splits | FunctionParts) -> dict[str, str]:
    """What tells these classes and pictures apart from others, for each part."""
    return {name: part.fingerprint() for name, part in splits._asdict().items()}


def load_splits(config: TrainConfig, run: RunFolder) -> Splits:
    """The classes of a run, parted as they were when it was trained.

    Raises:
        RunError: the data changed since then.

    Example:
        >>> learner, config, run = load_run("runs/a")  # doctest: +SKIP
        >>> splits = load_splits(config, run)  # doctest: +SKIP
    """
    if Path(config.data).is_absolute() and not Path(config.data).is_dir():
        raise RunError(f"{run.path} is of {config.data}, which is not there: --data says where it is now")
    splits = config.splits()
    check_splits(config, run, fingerprints(splits))
    return splits


def with_steps_taken(config: TrainConfig, run: RunFolder) -> TrainConfig:
    """The options with the meta-steps that were taken: fewer where patience ran out, or the run goes on."""
    done = finished(run)
    taken = [r["iteration"] for r in run.records()] if done is None else [done.iteration]
    return replace(config, iterations=max(taken, default=0))


def finished(run: RunFolder) -> History | None:
    """How a run went that has come to its end; None for one that has not.

    Raises:
        RunError: its summary or its records are damaged.
    """
    if not run.finished:
        return None
    summary = run.read_json(SUMMARY)
    if not isinstance(summary.get("iteration"), int) or not summary.keys() >= set(SUMMED):
        raise RunError(f"{run.path / SUMMARY} is damaged: it should hold {', '.join(SUMMED)}")
    return History(list(run.records()), **{k: summary[k] for k in SUMMED})


def changed(saved: dict[str, Any], config: TrainConfig) -> list[tuple[str, Any, Any]]:
    """Options in which a saved run differs, more iterations aside."""
    new, old = config.json(), TrainConfig.from_json(saved).json()
    new |= new.pop("settings")
    old |= old.pop("settings")
    came_to_vmap = config.strategy == "compile" and old["strategy"] == "vmap"
    if config.strategy in (None, "auto") or came_to_vmap:  # what it came to is replayed, as are threads
        del new["strategy"]
    if config.threads is not None:
        new["threads"], old["threads"] = config.threads, saved.get("threads")
    if config.device is not None and "device" in saved:
        new["device"], old["device"] = find_device(config.device).type, saved["device"]
    pairs = [(k, old.get(k), v) for k, v in new.items()]
    return [(k, was, v) for k, was, v in pairs if was != v and not (k == "iterations" and (was or 0) < v)]

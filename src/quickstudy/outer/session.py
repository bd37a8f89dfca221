"""A training run from options to a finished run folder, and a learner back from one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from quickstudy.data import Splits, polarity
from quickstudy.errors import RunError
from quickstudy.learners import Learner
from quickstudy.outer.checkpoint import BEST, History
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.meta_train import meta_train
from quickstudy.outer.progress import Progress
from quickstudy.outer.run_folder import RunFolder

SUMMARY = "summary.json"


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
    say: Callable[[str], None] = lambda text: None,
) -> History:
    """Meta-train as `config` says into the folder `out`.

    Args:
        resume: go on with the run in `out` (bit for bit as if it had never stopped); begin where there is
            none; do nothing where it is finished.
        log: called with each record.
        say: called with a line about the tasks before training begins.

    Raises:
        RunError: `out` exists without `resume`, or holds a run with other options or on other data.

    Example:
        >>> train(TrainConfig(data="glyphs", learner="protonet"), "runs/a", resume=True)  # doctest: +SKIP
    """
    out = Path(out)
    there = not RunFolder(out).vacant
    if there and not resume:
        raise RunError(f"{out} exists already: choose another --out, or go on with it by --resume")
    if there:
        run = RunFolder.open(out)
        saved = run.config
        differing = changed(saved, config)
        if differing:
            name, old, new = differing[0]
            raise RunError(
                f"{out} was begun with {name}={old}, not {new}: resume it with the same options "
                "(more iterations are allowed), or choose another --out"
            )
        done = finished(run)
        if done is not None and (config.iterations == saved["iterations"] or done.stopped_early):
            return done
        threads, strategy = saved.get("threads"), saved.get("strategy")
    else:
        threads, strategy = config.threads, config.strategy
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        splits = config.splits()
        shape = splits.train.image_shape
        learner = config.make_learner(shape, len(splits.train))
        tasks, problem = config.training_tasks(splits.train), config.problem(splits.val)
        config.problem(splits.test)  # a way or shot that the test classes do not allow is told now
        facts: dict[str, Any] = {
            "threads": torch.get_num_threads(),
            "strategy": strategy or learner.outer.strategy,
            "pictures": {
                "shape": list(shape),
                "polarity": polarity(splits.train.x[:2000]) if len(shape) == 3 else None,
            },
            "classes": len(splits.train),
            "splits": fingerprints(splits),
            "query_used": problem.query,
            "training": tasks.describe(),
        }
        say(f"validation on {problem.way}-way {problem.shot}-shot tasks, {problem.query} queries a class")
        if not there:
            run = RunFolder.create(out, {**config.json(), **facts})
        else:
            check_same(config, run, facts)
            if config.iterations != saved["iterations"]:
                (run.path / SUMMARY).unlink(missing_ok=True)  # not finished any more
                run.write_json("config.json", {**saved, "iterations": config.iterations})
        history = meta_train(
            learner,
            tasks,
            validation=problem,
            iterations=config.iterations,
            meta_batch=config.meta_batch,
            optimizer=config.optimizer,
            outer_lr=config.outer_lr,
            schedule=config.schedule,
            clip=config.clip,
            strategy=strategy,
            validate_every=config.validate_every,
            validation_tasks=config.validation_tasks,
            patience=config.patience,
            seed=config.seed,
            run=run,
            progress=progress,
            log=log,
        )
        if not (run.path / BEST).exists():  # a control without training
            run.save(BEST, learner.state_dict(), {"iteration": 0})
        run.write_json(
            SUMMARY,
            {
                "iteration": history.iteration,
                "best": history.best,
                "best_iteration": history.best_iteration,
                "stopped_early": history.stopped_early,
                "seconds": round(history.seconds, 1),
            },
        )
        return history
    finally:
        torch.set_num_threads(before)


def check_same(config: TrainConfig, run: RunFolder, facts: dict[str, Any]) -> None:
    """Refuse to go on with a run on data that changed since it was begun."""
    saved = run.config
    for name, new in json.loads(json.dumps(facts)).items():
        if name in saved and new != saved[name] and name != "splits":
            raise RunError(f"{run.path} was begun on other data: {name} was {saved[name]}, now it is {new}")
    check_splits(config, run, facts["splits"])


def check_splits(config: TrainConfig, run: RunFolder, now: dict[str, str]) -> None:
    """Refuse data whose classes or pictures are not those of the run."""
    then = run.config.get("splits", now)  # the first runs did not note them
    if then != now:
        parts = " and ".join(name for name in now if now[name] != then.get(name))
        raise RunError(
            f"{config.data} has changed since {run.path} was begun (other {parts} classes or pictures), so "
            "classes it was trained on may be among the unseen ones: bring the data back, or train anew"
        )


def fingerprints(splits: Splits) -> dict[str, str]:
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
    splits = config.splits()
    check_splits(config, run, fingerprints(splits))
    return splits


def finished(run: RunFolder) -> History | None:
    """How a run went that has come to its end; None for one that has not.

    Raises:
        RunError: its summary or its records are damaged.
    """
    if not run.finished:
        return None
    summary = run.read_json(SUMMARY)
    names = ("best", "best_iteration", "iteration", "stopped_early", "seconds")
    if not isinstance(summary.get("iteration"), int) or not summary.keys() >= set(names):
        raise RunError(f"{run.path / SUMMARY} is damaged: it should hold {', '.join(names)}")
    return History(list(run.records()), **{k: summary[k] for k in names})


def changed(saved: dict[str, Any], config: TrainConfig) -> list[tuple[str, Any, Any]]:
    """Options in which a saved run differs, more iterations aside."""
    new = config.json()
    settings, old_settings = new.pop("settings"), TrainConfig.from_json(saved).settings
    if config.strategy is None:  # the one that was chosen is replayed, as are the threads
        del new["strategy"]
    if config.threads is not None:
        new["threads"] = config.threads
    pairs = [(k, saved.get(k), v) for k, v in new.items()]
    pairs += [(k, old_settings.get(k), v) for k, v in settings.items()]
    return [(k, old, v) for k, old, v in pairs if old != v and not (k == "iterations" and (old or 0) < v)]


def load_run(
    path: str | Path, data_dir: Path | None = None, device: str | None = None
) -> tuple[Learner, TrainConfig, RunFolder]:
    """The learner of a run, with its best weights, and the options it was trained with.

    >>> learner, config, run = load_run("runs/demo")  # doctest: +SKIP
    """
    run = RunFolder.open(path)
    saved = run.config
    try:
        config = TrainConfig.from_json(saved, data_dir, device)
        learner = config.make_learner(tuple(saved["pictures"]["shape"]), saved["classes"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else error
        raise RunError(f"{run.path / 'config.json'} does not hold a training run's options: {why}") from error
    weights = run.load(BEST)[0]
    try:
        learner.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"{run.path / BEST} does not fit {run.path / 'config.json'}: {error}") from error
    learner.eval()
    return learner, config, run

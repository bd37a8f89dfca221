"""A training run from options to a finished run folder, and a learner back from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from quickstudy.data import polarity
from quickstudy.errors import RunError, UserError
from quickstudy.learners import Learner
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.meta_train import BEST, History, meta_train
from quickstudy.outer.progress import Progress
from quickstudy.outer.run_folder import RunFolder

SUMMARY = "summary.json"


def train(
    config: TrainConfig, out: str | Path, *, resume: bool = False, progress: Progress | None = None
) -> History:
    """Meta-train as `config` says into the folder `out`.

    Args:
        resume: go on with the run in `out` (bit for bit as if it had never stopped); begin where there is
            none; do nothing where it is finished.

    Raises:
        RunError: `out` exists without `resume`, or holds a run with other options.
    """
    out = Path(out)
    there = resume and (out / "config.json").exists()
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
        summary = run.read_json(SUMMARY) if run.finished else {}
        if run.finished and summary["iteration"] >= config.iterations or summary.get("stopped_early"):
            return History(
                list(run.records()), summary["best"], summary["best_iteration"], summary["iteration"]
            )
        threads = saved.get("threads")
    else:
        threads = config.threads
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        splits = config.splits()
        shape = splits.train.image_shape
        learner = config.make_learner(shape, len(splits.train))
        tasks, problem = config.training_tasks(splits.train), config.problem(splits.val)
        config.problem(splits.test)  # a way or shot that the test classes do not allow is told now
        facts = {
            "threads": torch.get_num_threads(),
            "strategy": config.strategy or learner.outer.strategy,
            "pictures": {
                "shape": list(shape),
                "polarity": polarity(splits.train.x[:2000]) if len(shape) == 3 else None,
            },
            "classes": len(splits.train),
            "query_used": problem.query,
            "training": tasks.describe(),
        }
        if not there:
            run = RunFolder.create(out, {**config.json(), **facts})
        elif config.iterations != saved["iterations"]:
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
            strategy=config.strategy,
            validate_every=config.validate_every,
            validation_tasks=config.validation_tasks,
            patience=config.patience,
            seed=config.seed,
            run=run,
            progress=progress,
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


def changed(saved: dict[str, Any], config: TrainConfig) -> list[tuple[str, Any, Any]]:
    """Options in which a saved run differs, more iterations aside."""
    new = config.json()
    pairs = [(k, saved.get(k), v) for k, v in new.items() if k != "settings"]
    pairs += [(k, saved.get("settings", {}).get(k), v) for k, v in new["settings"].items()]
    if config.threads is not None:
        pairs.append(("threads", saved.get("threads"), config.threads))
    return [
        (k, old, v) for k, old, v in pairs if old != v and not (k == "iterations" and (old or 0) < v)
    ]


def load_run(path: str | Path, data_dir: Path | None = None) -> tuple[Learner, TrainConfig, RunFolder]:
    """The learner of a run, with its best weights, and the options it was trained with.

    >>> learner, config, run = load_run("runs/demo")  # doctest: +SKIP
    """
    run = RunFolder.open(path)
    saved = run.config
    config = TrainConfig.from_json(saved, data_dir)
    try:
        learner = config.make_learner(tuple(saved["pictures"]["shape"]), saved["classes"])
        learner.load_state_dict(run.load(BEST)[0])
    except (KeyError, RuntimeError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise RunError(f"{path} is damaged: {error}") from error
    learner.eval()
    return learner, config, run

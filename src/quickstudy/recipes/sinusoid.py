"""Sinusoid regression (Finn et al. 2017, arXiv 1703.03400, section 5.1) beside pretraining on all tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quickstudy.errors import RunError
from quickstudy.learners import MAML
from quickstudy.nets import mlp
from quickstudy.outer import RunFolder, measure, meta_train
from quickstudy.outer.progress import Bar
from quickstudy.outer.seeds import seeded
from quickstudy.tasks import Sinusoids

RATES = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1)


def sinusoid_maml(steps: int, seed: int = 0) -> MAML:
    """The paper's learner: 40-40 MLP, rate 0.01; with `steps=0` it is pretrained on all tasks instead."""
    with seeded(seed):
        return MAML(mlp(1, (40, 40)), way=1, inner_lr=0.01, steps=steps)


def run(runs: Path, iterations: int = 15_000, n_tasks: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Train both, measure both at 1 and 10 inner steps; mean squared errors with intervals."""
    test = Sinusoids(shot=10, query=100, seed=2)
    validation = Sinusoids(shot=10, query=100, seed=1)
    result: dict[str, Any] = {"iterations": iterations, "tasks": n_tasks, "shot": 10, "seed": seed}
    for name, steps in (("maml", 1), ("pretrained", 0)):
        learner = sinusoid_maml(steps, seed)
        path = runs / f"sinusoid-{name}"
        config = {"data": "sinusoid", "learner": name, "iterations": iterations, "seed": seed}
        run = RunFolder.open(path) if (path / "config.json").exists() else RunFolder.create(path, config)
        if {k: run.config.get(k) for k in config} != config:
            raise RunError(f"{path} holds another run: remove it, or choose other folders with --runs")
        history = meta_train(
            learner,
            Sinusoids(shot=10, query=10, seed=seed),
            validation=validation,
            iterations=iterations,
            meta_batch=25,
            outer_lr=1e-3,
            validation_tasks=200,
            run=run,
            progress=Bar(f"sinusoids, {name}"),
        )
        result[f"{name}_seconds"] = round(history.seconds, 1)
        for test_steps in (0, 1, 10):
            learner.steps = test_steps
            if name == "pretrained" and test_steps:
                # The control's rate is chosen on meta-validation, for each number of steps.
                errors = {}
                for rate in RATES:
                    learner.inner_lr = rate
                    errors[rate] = measure(learner, validation, 200).mean("loss")
                learner.inner_lr = min(errors, key=lambda rate: errors[rate])
            measured = measure(learner, test, n_tasks)
            result[f"{name}_{test_steps}"] = {
                "mse": measured.mean("loss"),
                "ci95": measured.ci95("loss"),
                "inner_lr": learner.inner_lr,
            }
    return result

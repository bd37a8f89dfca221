"""The outer loop: clipping, seeds, best weights, and what is not a number."""

from __future__ import annotations

import gc
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.data import ClassDataset
from quickstudy.errors import NonFiniteError, RunError, TaskError, UserError
from quickstudy.inner.mapping import Strategy, map_tasks
from quickstudy.inner.outcome import Outcome
from quickstudy.learners import LEARNERS, MAML, AlphaMAML, Learner, PixelNN, Predictor, ProtoNet, build
from quickstudy.nets import conv4, mlp
from quickstudy.outer import RunFolder, meta_train
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.progress import NoProgress
from quickstudy.outer.session import train
from quickstudy.tasks import ClassTasks, SupervisedBatches
from quickstudy.tasks.regression import Lines
from quickstudy.tasks.task import Support, Task, TaskSource

Quick = Callable[..., TrainConfig]


class Slope(Learner):
    """A learner with the gradient (3, 4) wherever it is, whose validation loss is `losses` in turn."""

    def __init__(self, losses: list[float] | None = None) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self.losses = losses
        self.bad_at: int | None = None
        self.steps = 0

    def learn(self, support: Support) -> Predictor:
        return Predictor(lambda x: x, None)

    def forward(self, task: Task) -> Outcome:
        loss = 3 * self.w[0] + 4 * self.w[1]
        if self.steps == self.bad_at:
            loss = loss * math.nan
        return Outcome(loss, {"loss": loss})

    def judge(self, task: Task) -> Outcome:
        loss = torch.tensor(self.losses[self.steps - 1] if self.losses else 0.0)
        return Outcome(loss, {"loss": loss})

    def after_step(self, stats: Any, gradient: Any, progress: float) -> None:
        self.steps += 1


def go(learner: Slope, **options: Any) -> Any:
    defaults = {"optimizer": "sgd", "outer_lr": 1.0, "iterations": 1, "meta_batch": 2, "validate_every": 1}
    return meta_train(learner, Lines(), **{**defaults, **options})


@pytest.mark.parametrize(("clip", "length"), [(None, 5.0), (10.0, 5.0), (2.5, 2.5), (0.1, 0.1)])
def test_the_meta_gradient_is_clipped_to_its_norm(clip: float | None, length: float) -> None:
    learner = Slope()
    go(learner, clip=clip)
    assert learner.w.tolist() == pytest.approx([-0.6 * length, -0.8 * length])


def test_it_is_clipped_to_what_the_learner_states() -> None:
    class Steep(Slope):
        outer = replace(Slope.outer, clip=0.5)

    for clip, length in ((None, 0.5), (2.0, 2.0)):
        learner = Steep()
        go(learner, clip=clip)
        assert learner.w.tolist() == pytest.approx([-0.6 * length, -0.8 * length])


def test_the_rate_follows_the_schedule() -> None:
    learner = Slope()
    go(learner, iterations=4, schedule="linear")
    assert learner.w[0].item() == pytest.approx(-3 * (1 + 0.75 + 0.5 + 0.25))


def test_it_ends_with_the_weights_of_the_best_validation() -> None:
    learner = Slope([3.0, 1.0, 2.0, 1.0])
    history = go(learner, iterations=4, validation=Lines(), validation_tasks=2)
    assert (history.best, history.best_iteration, history.iteration) == (-1.0, 2, 4)
    assert learner.w[0].item() == -6
    assert not learner.training
    assert [r["val_loss"] for r in history.records] == [3, 1, 2, 1]


def test_patience() -> None:
    learner = Slope([3.0, 1.0, 2.0, 1.0, 2.0, 0.0])
    history = go(learner, iterations=6, validation=Lines(), validation_tasks=2, patience=3)
    assert (history.stopped_early, history.iteration, history.best_iteration) == (True, 5, 2)


def test_it_ends_where_stop_says_so() -> None:
    """As where patience runs out: with the best weights, which here are those of the second validation."""
    learner = Slope([3.0, 1.0, 2.0, 1.0])
    seen: list[int] = []

    def stop(record: dict[str, Any]) -> bool:
        seen.append(record["iteration"])
        return record["val_loss"] == 2.0

    history = go(learner, iterations=4, validation=Lines(), validation_tasks=2, stop=stop)
    assert (history.stopped_early, history.iteration, history.best_iteration) == (True, 3, 2)
    assert seen == [1, 2, 3]
    assert learner.w[0].item() == -6
    assert not learner.training


def test_a_validation_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, {})
    learner = Slope([math.nan, 5.0, math.nan])
    history = go(learner, iterations=3, validation=Lines(), validation_tasks=2, run=run)
    assert (history.best, history.best_iteration) == (-5.0, 2)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_a_loss_that_is_no_number_stops_and_names_the_step(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, {})
    learner = Slope()
    learner.bad_at = 3
    with pytest.raises(NonFiniteError, match="outer loss is not a finite number at meta-step 4; the state"):
        go(learner, iterations=9, run=run, validate_every=100)
    tensors, meta = run.load("checkpoint.safetensors")
    assert meta["iteration"] == 3
    assert tensors["learner.w"].tolist() == [-9, -12]


def test_a_meta_gradient_that_is_no_number_stops() -> None:
    class Root(Slope):
        def forward(self, task: Task) -> Outcome:
            loss = self.w.abs().sqrt().sum()  # 0, with an infinite slope
            return Outcome(loss, {"loss": loss})

    learner = Root()
    with pytest.raises(NonFiniteError, match="meta-gradient is not a finite number at meta-step 1"):
        go(learner)
    assert learner.w.tolist() == [0, 0]


def test_a_gradient_that_a_learner_steers_by_is_a_number_too(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = sys.modules["quickstudy.outer.meta_train"]
    learner, real = AlphaMAML(mlp(1), way=1, inner_lr=0.01), module.meta_gradient

    def broken(*given: Any) -> Any:
        outcome, gradient = real(*given)
        return outcome, {**gradient, "log_factor": torch.tensor(torch.nan)}

    monkeypatch.setattr(module, "meta_gradient", broken)
    with pytest.raises(NonFiniteError, match="meta-gradient is not a finite number at meta-step 1"):
        meta_train(learner, Lines(), iterations=2, meta_batch=2)
    assert torch.isfinite(learner.alpha)


def test_each_step_has_tasks_of_its_own() -> None:
    class Watched(Lines):
        seen: list[int]

        def batch(self, indices: Any) -> Task:
            seen.extend(indices.tolist())
            return super().batch(indices)

    seen: list[int] = []
    meta_train(Slope(), Watched(), iterations=3, meta_batch=4, optimizer="sgd", outer_lr=0.1)
    assert seen == [*range(4), *range(12)]  # the first were tried, to choose a strategy


def test_a_learner_of_another_type_is_trained(quick: Quick) -> None:
    parts = quick().splits()
    learner = quick().make_learner(parts.train.image_shape, 4).double()
    history = meta_train(
        learner, quick().training_tasks(parts.train), validation=quick().problem(parts.val), iterations=1
    )
    assert math.isfinite(history.records[0]["val_loss"])
    assert {p.dtype for p in learner.parameters()} == {torch.float64}


def test_records_hold_the_mean_since_the_last() -> None:
    learner = Slope()
    history = go(learner, iterations=4, validate_every=2)
    assert [r["iteration"] for r in history.records] == [2, 4]
    assert [r["train_loss"] for r in history.records] == [-12.5, -62.5]  # of 0, -25 and -50, -75


def test_what_has_nothing_to_train_is_left() -> None:
    assert meta_train(PixelNN(), Lines(), iterations=5).iteration == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("iterations", -5, "at least 0 and finite, not -5"),
        ("iterations", 1.5, r"a whole number, not 1\.5"),
        ("meta_batch", 0, "at least 1, not 0"),
        ("meta_batch", -1, "at least 1, not -1"),
        ("validate_every", 0, "at least 1, not 0"),
        ("validation_tasks", 0, "at least 1, not 0"),
        ("patience", 0, "at least 1, not 0"),
        ("outer_lr", -0.1, r"at least 0 and finite, not -0\.1"),
        ("outer_lr", math.nan, "at least 0 and finite, not nan"),
        ("clip", -1.0, r"above 0, not -1\.0"),
        ("clip", 0.0, r"above 0, not 0\.0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(name: str, value: float, said: str) -> None:
    learner = Slope()
    with pytest.raises(UserError, match=f"^{name} must be {said}$"):
        go(learner, **{name: value})
    assert learner.w.tolist() == [0, 0]


def test_a_run_may_be_a_path(tmp_path: Path) -> None:
    for place in (str(tmp_path / "a"), tmp_path / "b"):
        go(Slope(), iterations=2, run=place)
        learner = Slope()
        assert go(learner, iterations=3, run=place).iteration == 3
        assert learner.steps == 1  # the first two were there
        assert learner.w[0].item() == -9
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is not a run folder"):
        go(Slope(), run=tmp_path / "file")


def test_a_bar_is_shown_where_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    go(Slope(), iterations=2)
    assert capsys.readouterr().err == ""
    go(Slope(), iterations=2, progress=True)
    assert "train loss" in capsys.readouterr().err


def test_tasks_and_ordinary_batches_are_not_taken_for_each_other(quick: Quick) -> None:
    parts = quick().splits()
    batches, tasks = SupervisedBatches(parts.train), quick().training_tasks(parts.train)
    pretrained = quick(learner="pretrain-centroid").make_learner(parts.train.image_shape, 4)
    with pytest.raises(TaskError, match=r"PretrainCentroid .* give it SupervisedBatches"):
        meta_train(pretrained, tasks, iterations=1)
    learner = quick().make_learner(parts.train.image_shape, 4)
    with pytest.raises(TaskError, match="ProtoNet learns from tasks, but these have no support set"):
        meta_train(learner, batches, iterations=1)


def test_validation_maps_tasks_as_training_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(function: Any, module: Any, batch: Task, strategy: str) -> Any:
        seen.append(strategy)
        return map_tasks(function, module, batch, strategy)

    for room in ("outer.measure", "inner.estimate"):
        monkeypatch.setattr(sys.modules[f"quickstudy.{room}"], "map_tasks", noted)
    go(Slope(), validation=Lines(), validation_tasks=3, strategy="vmap")
    assert seen == ["vmap", "vmap"]


def test_same_seed_same_weights_and_no_trace(quick: Quick, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    weights = []
    for i, seed in enumerate((0, 0, 1)):
        torch.rand(i)  # whatever the global generator did before
        state = torch.get_rng_state()
        train(quick(seed=seed), tmp_path / str(i))
        assert torch.equal(torch.get_rng_state(), state)
        weights.append((tmp_path / str(i) / "best.safetensors").read_bytes())
    torch.set_rng_state(before)
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("strategy", ["loop", "vmap"])
@pytest.mark.parametrize("kind", [MAML, ProtoNet])
def test_dropout_is_drawn_from_seed_and_step(
    kind: type[Learner], strategy: str, quick: Quick, tmp_path: Path
) -> None:
    tasks = quick().training_tasks(quick().splits().train)

    def go_on(until: int, **options: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.ReLU())
        body.features = 8
        learner = kind(body, **({"way": 4} if kind is MAML else {}))
        torch.rand(until)  # whatever the global generator did before
        state = torch.get_rng_state()
        fixed: Any = {"meta_batch": 2, "schedule": "constant", "strategy": strategy}
        meta_train(learner, tasks, iterations=until, **fixed, **options)
        assert torch.equal(torch.get_rng_state(), state)
        return learner.state_dict()

    whole, other_seed = go_on(6), go_on(6, seed=1)
    run = RunFolder.create(tmp_path, {})
    go_on(3, run=run)
    resumed = go_on(6, run=run)
    assert all(torch.equal(resumed[k], v) for k, v in whole.items())
    assert any(not torch.equal(other_seed[k], v) for k, v in whole.items())


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("strategy", ["loop", "vmap"])
def test_memory_does_not_grow_over_meta_steps(learner: str, strategy: Strategy, blobs: ClassDataset) -> None:
    """Tensors that live after each step of the real loop, its history and display aside."""
    alive: list[int] = []

    class Counting(NoProgress):
        def step(self, done: int, metrics: dict[str, float], tasks: int) -> None:
            gc.collect()
            alive.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))

    net = build(learner, conv4(2, size=16, blocks=2), way=3, classes=8)
    source: TaskSource = ClassTasks(blobs, 3, 1, query=1)
    training = SupervisedBatches(blobs, size=6) if net.trains_on == "batches" else source
    gc.collect()
    gc.freeze()  # what was there before need not be looked through
    try:
        meta_train(net, training, validation=source, validation_tasks=2, validate_every=4, iterations=9,
                   meta_batch=2, strategy=strategy, progress=Counting())  # fmt: skip
    finally:
        gc.unfreeze()
    assert len(alive) == 9
    assert max(alive[4:]) <= max(alive[1:4])


def test_a_run_at_a_path_is_claimed_and_refuses_other_options(tmp_path: Path) -> None:
    go(Slope(), run=tmp_path / "a")
    with RunFolder.open(tmp_path / "a").claimed(), pytest.raises(RunError, match="is in use"):
        go(Slope(), run=tmp_path / "a", iterations=2)
    with pytest.raises(RunError, match="was begun with seed=0, not 3"):
        go(Slope(), run=tmp_path / "a", iterations=2, seed=3)
    with pytest.raises(RunError, match="was begun with meta_batch=2, not 4"):
        go(Slope(), run=tmp_path / "a", iterations=2, meta_batch=4)
    assert go(Slope(), run=tmp_path / "a", iterations=2).iteration == 2


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "halving"])
def test_more_iterations_follow_the_longer_schedule(schedule: str, tmp_path: Path) -> None:
    """From where it is gone on, each step is of the rate that it would have in one run."""

    class Rates(Slope):
        def __init__(self) -> None:
            super().__init__()
            self.at: list[float] = []

        def after_step(self, *args: Any) -> None:
            super().after_step(*args)
            self.at.append(self.w[0].item())

    begun, longer, whole = Rates(), Rates(), Rates()
    go(begun, iterations=4, schedule=schedule, run=tmp_path)
    go(longer, iterations=8, schedule=schedule, run=tmp_path)
    go(whole, iterations=8, schedule=schedule)
    assert np.diff([begun.at[-1], *longer.at]) == pytest.approx(np.diff(whole.at[3:]))

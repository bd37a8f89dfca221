"""Budgets by a clock that only what is timed moves."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from quickstudy.learners import Learner, MAMLPlusPlus
from quickstudy.outer.config import TrainConfig
from quickstudy.recipes import budget
from quickstudy.recipes.budget import shared, within
from quickstudy.recipes.learners import Part


class Clock:
    """Stands still, but for what is said to take time."""

    now = 0.0

    def process_time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(budget, "time", clock)
    return clock


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    options = {"data": "digits", "way": 3, "channels": 4, "size": 16, "validation_tasks": 40, "query": 3}
    return Part("maml++", "omniglot", options).config(None)


def taking(monkeypatch: pytest.MonkeyPatch, clock: Clock, name: str, seconds: Any) -> None:
    """A function of the module takes so long, which is a function of what it is called with; what it returns
    is computed once."""
    whole, known = getattr(budget, name), {}

    def slow(learner: Learner, *args: Any, **options: Any) -> Any:
        if id(learner) not in known:
            known[id(learner)] = whole(learner, *args, **options)
        clock.now += seconds(learner, *args)
        return known[id(learner)]

    monkeypatch.setattr(budget, name, slow)


def test_the_mean_over_the_stages_of_a_run(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, small: TrainConfig
) -> None:
    """MAML++ takes longer at its beginning, where each step's loss counts, a tenth of a run."""

    def seconds(learner: MAMLPlusPlus, *args: Any) -> float:
        return 2.0 if learner.every_step else 0.5

    taking(monkeypatch, clock, "meta_gradient", seconds)
    taking(monkeypatch, clock, "measure", lambda *_: 0.5)  # of 20 tasks; 1 s for 40
    found = within(small, 600.0)
    exact = (600 - 20 * 1) / (0.1 * 2.0 + 0.9 * 0.5)
    assert found.iterations == pytest.approx(exact, rel=0.15)
    assert found.iterations / found.validate_every == pytest.approx(20, abs=1)
    assert dataclasses.replace(found, iterations=3000, validate_every=None) == small


def test_slow_validations_stay_within_the_budget() -> None:
    for step, validation in ((0.01, 0.1), (1.0, 10.0), (1.0, 60.0), (5.0, 100.0)):
        iterations, every = shared(600.0, step, validation)
        validations = iterations // every
        assert iterations * step + validations * validation <= 600
        assert iterations * step + (validations + 1) * validation + step > 600 * 0.9
        assert validations >= 3


def test_strategy_is_that_of_a_run_of_its_length(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, small: TrainConfig
) -> None:
    """Compiled, a meta-step takes a tenth; that is chosen for long runs alone."""
    asked: list[int] = []

    def settle(learner: Learner, tasks: Any, size: int, strategy: str, iterations: int) -> str:
        asked.append(iterations)
        return "vmap" if iterations > 5000 else "loop"

    monkeypatch.setattr(budget, "settle_strategy", settle)

    def seconds(learner: Learner, tasks: Any, i: int, size: int, strategy: str) -> float:
        return 0.01 if strategy == "vmap" else 0.1

    taking(monkeypatch, clock, "meta_gradient", seconds)
    short, long = within(small, 100.0), within(small, 600.0)
    assert short.iterations == pytest.approx(1000, abs=1)
    assert long.iterations == pytest.approx(60_000, abs=1)
    assert asked[-2:] == pytest.approx([6000, 60_000], abs=1)


def test_nothing_to_train_is_one_step(clock: Clock) -> None:
    config = Part("pixel-nn", "omniglot", {"data": "digits", "way": 3, "size": 16, "query": 3}).config(None)
    assert within(config, 600.0).iterations == 1

"""Spaces: read off the learners' signatures, or said; every value in them can be tried."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from quickstudy import nets
from quickstudy.errors import UserError
from quickstudy.evaluation.tuning.space import Choice, Range, space_of, start_of, tried, usual_space
from quickstudy.learners import LEARNERS, build
from quickstudy.outer.config import TrainConfig


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_usual_space_holds_the_defaults_and_what_learners_take(learner: str) -> None:
    config = TrainConfig(learner=learner)
    space = usual_space(config)
    made = build(learner, nets.mlp(4, (8,)), way=2, classes=2)
    outer = space.pop("outer_lr")
    assert isinstance(outer, Range)
    assert outer.log
    assert outer.low * 99 < made.outer.outer_lr < outer.high / 9
    taken = {k for base in type(made).__mro__ for k in inspect.signature(base).parameters}
    assert set(space) <= taken
    for name, searched in space.items():
        assert getattr(made, name) in searched
        for value in searched.ends():
            tried(config, {name: value})


def test_what_is_searched_by_default() -> None:
    def of(learner: str, *fixed: str) -> dict[str, str]:
        return {k: str(v) for k, v in usual_space(TrainConfig(learner=learner), fixed).items()}

    assert of("maml") == {"outer_lr": "3e-05..0.03", "inner_lr": "0.004..4.0", "steps": "1..5"}
    assert of("imaml", "outer_lr", "inner_lr") == {
        "steps": "1..32",
        "strength": "0.2..20.0",
        "cg_steps": "2,5,10",
        "damping": "2.2..220.0",
    }
    assert of("maml++")["learned_rates"] == "true,false"
    assert of("relation")["objective"] == "cross-entropy,mse"
    assert "labels" not in of("mann")  # which tasks it can answer
    with pytest.raises(UserError, match="every option that is searched by default is given"):
        of("hypernet", "outer_lr", "hidden")


def test_text_and_python_say_the_same() -> None:
    config = TrainConfig(learner="maml++")
    text = {"inner_lr": "0.001..0.5", "steps": "1..5", "learned_rates": "true,false", "channels": "16,32"}
    python = {"inner_lr": (0.001, 0.5), "steps": (1, 5), "learned_rates": [True, False], "channels": [16, 32]}
    space = space_of(config, text)
    assert space == space_of(config, python) == space_of(config, space)
    assert space == {
        "inner_lr": Range(0.001, 0.5, log=True),
        "steps": Range(1, 5, whole=True),
        "learned_rates": Choice((True, False)),
        "channels": Choice((16, 32)),
    }
    assert space_of(config, {name: str(values) for name, values in space.items()}) == space
    assert space_of(TrainConfig(learner="reptile"), {"momentum": "0..0.9"}) == {"momentum": Range(0.0, 0.9)}
    assert space_of(config, {"meta_batch": "2..8", "clip": "1,10"}) == {
        "meta_batch": Range(2, 8, whole=True),
        "clip": Choice((1.0, 10.0)),
    }


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"inner_rl": "0.1..1"}, "unknown option to search 'inner_rl': did you mean 'inner_lr'"),
        ({"distance": "cosine,euclidean"}, "unknown option to search 'distance'"),  # not one of maml
        ({"way": "5..20"}, "way cannot be searched: it changes what is solved or measured"),
        ({"seed": "1,2"}, "seed cannot be searched"),
        ({"inner_lr": "0.5..0.1"}, "the range 0.5..0.1 is empty"),
        ({"inner_lr": "0..1"}, "inner_lr: a rate is searched by its logarithm, so from above 0, not from 0"),
        ({"inner_lr": "x..1"}, "inner_lr: 'x' is not a number"),
        ({"inner_lr": "0.1..1..2"}, "a range has two ends"),
        ({"inner_lr": "0.1..inf"}, "must be finite"),
        ({"inner_lr": "0.1"}, "inner_lr: one value is nothing to search: give two or more, inner_lr=A,B, or"),
        ({"steps": "1..2.5"}, "steps: '2.5' is not a whole number"),
        ({"steps": "-1..5"}, "steps=-1 cannot be tried: steps must be at least 0"),
        ({"meta_batch": "0..5"}, "meta-batch must be at least 1, not 0"),
        (
            {"schedule": "linear..cosine"},
            "schedule is not a number, so it has no range: schedule=constant,lin",
        ),
        ({"schedule": "linear,cosin"}, "unknown value of schedule 'cosin': did you mean 'cosine'"),
        ({"steps": 3}, "steps: a range is"),
    ],
)
def test_mistakes_are_told(said: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        space_of(TrainConfig(), said)
    assert told in str(error.value)


def test_switches_and_limits_of_a_learner() -> None:
    with pytest.raises(UserError, match=r"learned_rates is not a number.*learned_rates=true,false"):
        space_of(TrainConfig(learner="maml++"), {"learned_rates": "0..1"})
    with pytest.raises(UserError, match=r"momentum=1\.0 cannot be tried: momentum must be below 1"):
        space_of(TrainConfig(learner="reptile"), {"momentum": (0.0, 1.0)})


def test_the_start_is_of_the_options_given() -> None:
    config = TrainConfig(outer_lr=1e-5, settings={"steps": 3})
    space = space_of(config, {"outer_lr": (1e-5, 1), "steps": (1, 2), "schedule": ["cosine", "linear"]})
    assert start_of(space, config) == {"outer_lr": 1e-5, "schedule": "cosine"}

"""A run's options as words: `quickstudy train` understands them as the same options."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from quickstudy.app.options import parse
from quickstudy.app.train import command
from quickstudy.learners import learner_class
from quickstudy.learners.registry import options
from quickstudy.outer.config import TrainConfig
from quickstudy.outer.words import as_words


def understood(words: list[str]) -> TrainConfig:
    """What `train` makes of the words."""
    learner = words[words.index("--learner") + 1]
    given: Any = parse(command(learner), [*words, "--out", "a"], "train")
    common = {f.name: getattr(given, f.name) for f in dataclasses.fields(TrainConfig)}
    own = {name: getattr(given, name) for name in options(learner_class(learner))}
    return TrainConfig(**{**common, "settings": own})


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(data="omniglot", learner="maml++", settings={"learned_rates": False, "steps": 3}),
        TrainConfig(learner="matching", settings={"full_context": True, "temperature": 1 / 3}),
        TrainConfig(body="mlp", norm="support", mirrored=True, augment="drawing", clip=2.5, precision="bf16"),
        TrainConfig(learner="mann", outer_lr=1e-7, norm="batch", threads=2, device="cpu", patience=3),
        TrainConfig(
            data="quickdraw", learner="anil", data_dir=Path("."), settings={"inner_params": "body|x"}
        ),
    ],
)
def test_words_say_all_that_is_not_usual(config: TrainConfig) -> None:
    assert understood(as_words(config)) == config


def test_what_is_usual_is_not_said() -> None:
    assert as_words(TrainConfig(learner="reptile")) == ["--data", "glyphs", "--learner", "reptile"]

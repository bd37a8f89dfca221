"""A run's options as the words of `quickstudy train`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from quickstudy.learners import learner_class
from quickstudy.learners.registry import options
from quickstudy.outer.config import TrainConfig


def as_words(config: TrainConfig) -> list[str]:
    """What to give `quickstudy train`, besides --out, for a run with these options: those that are not as
    they would be anyway.

    >>> as_words(TrainConfig(data="digits", way=3, outer_lr=0.01, settings={"steps": 5}))
    ['--data', 'digits', '--learner', 'maml', '--way', '3', '--outer-lr', '0.01', '--steps', '5']
    """
    usual = TrainConfig(data=config.data, learner=config.learner, body=config.body)
    words = ["--data", config.data, "--learner", config.learner]
    if config.body != TrainConfig.body:
        words += ["--body", config.body]
    for field in fields(TrainConfig):
        if field.name != "settings" and getattr(config, field.name) != getattr(usual, field.name):
            words += _word(field.name, getattr(config, field.name))
    for name in options(learner_class(config.learner)):
        if config.settings[name] != usual.settings[name]:
            words += _word(name, config.settings[name])
    return words


def _word(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", str(value)]

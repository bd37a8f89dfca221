from __future__ import annotations

import inspect

import pytest

from quickstudy.learners import ANIL, MAML
from quickstudy.learners.preset import preset
from quickstudy.learners.registry import option_help, options
from quickstudy.nets import mlp


def test_a_preset_is_its_parent_with_other_defaults() -> None:
    assert inspect.signature(ANIL).parameters.keys() == inspect.signature(MAML).parameters.keys()
    wanted = {"inner_params": "head", "inner_lr": 0.1, "steps": 5, "test_steps": None}
    assert {k: p.default for k, p in options(ANIL).items()} == wanted
    assert option_help(ANIL) == option_help(MAML)
    learner = ANIL(mlp(2), way=3, steps=2)
    assert (learner.inner_params, learner.inner_lr, learner.steps) == ("head", 0.1, 2)
    assert isinstance(learner, MAML)
    assert MAML(mlp(2), way=3).inner_params == "all"


def test_a_preset_of_a_preset() -> None:
    @preset(steps=1)
    class Short(ANIL):
        pass

    learner = Short(mlp(2), way=3)
    assert (learner.inner_params, learner.steps) == ("head", 1)


def test_only_arguments_have_defaults() -> None:
    with pytest.raises(TypeError, match="Wrong has no argument rate"):

        @preset(rate=1)
        class Wrong(MAML):
            pass

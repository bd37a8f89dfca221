from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

import pytest
import torch
from torch import nn

import quickstudy.learners as room
from quickstudy.errors import UserError
from quickstudy.learners import CONTROLS, LEARNERS, Learner, build, learner_class
from quickstudy.learners.registry import option_help, options
from quickstudy.nets import conv4

ALL = {**LEARNERS, **CONTROLS}


def test_names_are_distinct_and_classes_are_exported() -> None:
    assert not set(LEARNERS) & set(CONTROLS)
    for name, kind in ALL.items():
        assert re.fullmatch(r"[a-z][a-z0-9+-]*", name)
        assert learner_class(name) is kind
        assert getattr(room, kind.__name__) is kind
    assert len(set(ALL.values())) == len(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_learner_made_by_name_solves_a_task(name: str) -> None:
    learner = build(name, conv4(4), way=3, classes=10)
    assert isinstance(learner, Learner)
    predictor = learner.adapt(torch.rand(6, 1, 28, 28), torch.arange(6) % 3)
    assert predictor(torch.rand(4, 1, 28, 28)).shape == (4, 3)


@pytest.mark.parametrize("name", ALL)
def test_every_option_has_a_default_and_is_explained(name: str) -> None:
    kind = ALL[name]
    help_ = option_help(kind)
    assert set(help_) == set(options(kind))
    for option, parameter in options(kind).items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty, option
        union = get_origin(parameter.annotation) in (Union, types.UnionType)
        kinds = get_args(parameter.annotation) if union else (parameter.annotation,)
        assert all(isinstance(kind, type) or get_origin(kind) in (Literal, Callable) for kind in kinds), (
            option
        )
        assert help_[option], option
        assert "\n" not in help_[option]
    assert kind.__doc__
    assert re.search(r"\d{4}|control|floor|scratch|[Pp]retrain", inspect.getmodule(kind).__doc__ or "")


@pytest.mark.parametrize("name", ALL)
def test_an_option_is_an_attribute_of_its_name(name: str) -> None:
    learner = build(name, conv4(4), way=3, classes=10)
    for option, parameter in options(ALL[name]).items():
        assert getattr(learner, option) == parameter.default, option


def test_help_spans_lines_ends_with_the_section_and_is_inherited() -> None:
    class Sample(Learner):
        """Summary.

        Args:
            body: a net.
            rate: how fast,
                and how far.
            steps: how many.

        Example:
            >>> 1
            1
        """

        def __init__(self, body: nn.Module, *, rate: float = 1.0, steps: int = 2) -> None:
            super().__init__()

    class Further(Sample):
        """Summary.

        Args:
            steps: a lot.
        """

    assert option_help(Sample) == {"rate": "how fast, and how far.", "steps": "how many."}
    assert option_help(Further) == {"rate": "how fast, and how far.", "steps": "a lot."}


def test_settings_reach_the_learner() -> None:
    learner = build(
        "maml", conv4(4), way=3, classes=9, settings={"inner_lr": 0.25, "steps": 7, "inner_params": "head"}
    )
    assert (learner.inner_lr, learner.steps, learner.inner_params) == (0.25, 7, "head")
    assert build("pretrain-centroid", conv4(4), way=3, classes=9).classes == 9


def test_errors_name_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown learner 'mamll': did you mean 'maml'"):
        learner_class("mamll")
    with pytest.raises(UserError, match="unknown option of maml 'inner_rl': did you mean 'inner_lr'"):
        build("maml", conv4(4), way=3, classes=9, settings={"inner_rl": 1})
    with pytest.raises(UserError, match="untrained has no options, so not 'steps' either"):
        build("untrained", conv4(4), way=3, classes=9, settings={"steps": 1})


def test_a_class_of_ones_own_goes_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_for_test.py").write_text(
        "import quickstudy as qs\nclass Own(qs.ProtoNet): pass\nclass Half(qs.Learner): pass\nnothing = 3\n"
    )
    (tmp_path / "broken_for_test.py").write_text("import nowhere_at_all\n")
    (tmp_path / "wrong_for_test.py").write_text("1 / 0\n")
    kind = learner_class("own_for_test:Own")
    assert issubclass(kind, LEARNERS["protonet"])
    assert set(options(kind)) == set(options(LEARNERS["protonet"]))
    assert isinstance(
        build("own_for_test:Own", conv4(4), way=3, classes=9, settings={"distance": "cosine"}), kind
    )
    for name, words in {
        "own_for_test:Other": "own_for_test has no 'Other'",
        "own_for_test:nothing": "no class that builds on quickstudy.Learner",
        "own_for_test:Half": "has no learn yet",
        "not_there_for_test:Own": "there is no module 'not_there_for_test'",
        "own_for_test.deeper:Own": "there is no module",
        "broken_for_test:Own": "broken_for_test cannot be imported: No module named 'nowhere_at_all'",
        "wrong_for_test:Own": "cannot be imported: division by zero",
        ":Own": "cannot be imported|no module",
    }.items():
        with pytest.raises(UserError, match=words):
            learner_class(name)

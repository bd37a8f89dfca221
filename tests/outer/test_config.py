"""The options of a run: what is refused, what goes through JSON, which tasks they mean."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from quickstudy.data import ClassDataset
from quickstudy.errors import RunError, TaskError, UserError
from quickstudy.learners.base import OptimizerName, ScheduleName
from quickstudy.outer import meta_train
from quickstudy.outer.config import LEAST, OUTER, TrainConfig
from quickstudy.outer.optimizers import OPTIMIZERS, SCHEDULES
from quickstudy.tasks import ClassTasks, SupervisedBatches

Quick = Callable[..., TrainConfig]


def test_json_and_back(tmp_path: Path) -> None:
    config = TrainConfig(
        learner="reptile", shot=5, outer_lr=0.1, settings={"steps": 3}, data_dir=tmp_path, threads=2
    )
    values = json.loads(json.dumps(config.json()))
    assert "data_dir" not in values
    again = TrainConfig.from_json({**values, "version": 1, "threads": 2}, tmp_path)
    assert again == config


def test_keys_of_json_are_the_options() -> None:
    machine = {"data_dir", "threads", "device"}
    assert set(TrainConfig().json()) == {f.name for f in fields(TrainConfig)} - machine


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_the_least_values(name: str, least: float) -> None:
    TrainConfig(**{name: least})
    with pytest.raises(UserError, match=f"{name.replace('_', '-')} must be at least {least}, not"):
        TrainConfig(**{name: least - 1})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outer_lr": float("nan")}, "outer-lr must be a finite number, not nan"),
        ({"clip": float("inf")}, "clip must be a finite number, not inf"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"precision": "fp16"}, "unknown precision 'fp16': did you mean 'bf16'"),
        ({"settings": {"inner_lr": float("nan")}}, "inner-lr must be a finite number"),
        ({"settings": {"inner_params": str.isupper}}, "inner-params is a function, which cannot be kept"),
        ({"learner": "mamll"}, "unknown learner 'mamll': did you mean 'maml'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TrainConfig(**options)


def test_damaged_options_are_told() -> None:
    with pytest.raises(RunError, match="not a training run's options"):
        TrainConfig.from_json({"way": "five"})


def test_tasks_follow_the_options(quick: Quick) -> None:
    config = quick(learner="maml", shot=2, query=3, train_query=4, seed=5)
    splits = config.splits()
    problem, training = config.problem(splits.val), config.training_tasks(splits.train)
    assert (problem.way, problem.shot, problem.query) == (3, 2, 3)
    assert isinstance(training, ClassTasks)
    assert (training.way, training.shot, training.query, training.seed) == (3, 2, 4, 5)
    wide = quick(train_way=4, train_shot=3).training_tasks(splits.train)
    assert isinstance(wide, ClassTasks)
    assert (wide.way, wide.shot) == (4, 3)
    assert isinstance(quick(learner="pretrain-centroid").training_tasks(splits.train), SupervisedBatches)


def test_unlabelled_examples_are_in_training_and_in_the_problem_labels_are_rare_in_training(
    quick: Quick,
) -> None:
    config = quick(
        learner="semi-protonet", way=2, unlabelled=1, distractors=1, labelled=0.5, train_query=None
    )
    splits = config.splits()
    training, problem = config.training_tasks(splits.train), config.problem(splits.test, unlabelled=2)
    assert isinstance(training, ClassTasks)
    assert (training.unlabelled, training.distractors, training.labelled) == (1, 1, 0.5)
    assert training.way == len(splits.train) - 1
    fewest = int(splits.train.counts.min())
    assert training.query == min(5, fewest // 2 - 1)
    assert (problem.unlabelled, problem.distractors, problem.labelled) == (2, 1, 1.0)
    pretrained = replace(config, learner="pretrain-centroid", settings={}, unlabelled=0, distractors=0)
    with pytest.raises(
        UserError, match=r"pretrain-centroid is trained on all labels, not on --labelled 0\.5"
    ):
        pretrained.training_tasks(splits.train)
    with pytest.raises(UserError, match="protonet learns from labelled examples only: leave --unlabelled"):
        replace(config, learner="protonet", settings={})


def test_training_ways_are_never_more_than_the_classes(quick: Quick) -> None:
    config = quick(learner="protonet", train_way=None)
    training = config.training_tasks(config.splits().train)
    assert isinstance(training, ClassTasks)
    assert training.way <= 4


def test_a_head_cannot_train_on_more_ways(quick: Quick) -> None:
    config = quick(learner="maml", train_way=4)
    with pytest.raises(TaskError, match="maml has a head for 3 ways and cannot train on 4"):
        config.training_tasks(config.splits().train)


@pytest.mark.parametrize("body", ["mlp", "conv4", "resnet"])
def test_initial_weights_are_a_function_of_the_seed(body: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        config = TrainConfig(learner="protonet", body=body, channels=2, seed=seed)
        learner = config.make_learner((1, 28, 28), 4)
        return torch.cat([p.detach().flatten() for p in learner.parameters()])

    before = torch.get_rng_state()
    first = weights(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(weights(3), first)
    assert not torch.equal(weights(4), first)


def test_vectors_need_an_mlp() -> None:
    with pytest.raises(UserError, match=r"not pictures: use --body mlp"):
        TrainConfig(learner="protonet").make_learner((7,), 4)
    body = TrainConfig(learner="protonet", body="mlp", channels=2).make_body((7,))
    assert body(torch.rand(3, 7)).shape == (3, 2)


def test_rotations_by_default_on_omniglots_characters_only(
    quick: Quick, monkeypatch: pytest.MonkeyPatch, blobs: ClassDataset
) -> None:
    assert len(quick().splits().train) == 4
    assert [len(part) for part in quick(rotations="all").splits()] == [16, 12, 12]
    assert [len(part) for part in quick(rotations="train").splits()] == [16, 3, 3]
    named = replace(
        blobs, splits=dict.fromkeys(("vinyals", "authors", "alphabet"), ((0, 1, 2, 3), (4, 5), (6, 7)))
    )
    monkeypatch.setattr("quickstudy.outer.config.load_data", lambda *a, **k: named)
    for split, classes in ((None, 16), ("vinyals", 16), ("authors", 4), ("alphabet", 4)):
        parts = quick(data="omniglot", split=split, way=2).splits()
        assert (len(parts.train), len(parts.test)) == (classes, classes // 2), split
    assert len(quick(data="omniglot", rotations="none", way=2).splits().train) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": "vgg"}, "unknown body 'vgg'"),
        ({"strategy": "serial"}, "unknown strategy 'serial'"),
        ({"schedule": "cos"}, "unknown schedule 'cos': did you mean 'cosine'"),
        ({"optimizer": "rms"}, "unknown optimizer 'rms'"),
        ({"norm": "bn"}, "unknown norm 'bn'"),
        ({"way": "3"}, "way must be a whole number, not '3'"),
        ({"iterations": 10.5}, r"iterations must be a whole number, not 10\.5"),
        ({"shot": True}, "shot must be a whole number, not True"),
        ({"outer_lr": "0.1"}, r"outer-lr must be a number, not '0\.1'"),
        ({"train_query": 2.0}, r"train-query must be a whole number, not 2\.0"),
    ],
)
def test_other_words_and_fractions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig(**options)


def test_fewer_classes_for_meta_training() -> None:
    """Always the same ones; those to be solved stay."""
    config = TrainConfig(data="glyphs", way=5, size=16)
    every, few, fewer = (
        TrainConfig(data="glyphs", way=5, size=16, train_classes=n).splits() for n in (None, 40, 10)
    )
    assert set(fewer.train.names) < set(few.train.names) < set(every.train.names)
    assert (len(fewer.train), len(few.train)) == (10, 40)
    assert few.val.names == every.val.names
    assert few.test.names == every.test.names
    assert list(few.train.names) == [name for name in every.train.names if name in few.train.names]
    again = TrainConfig(data="glyphs", way=5, size=16, train_classes=40, seed=7).splits()
    assert again.train.names == few.train.names
    assert config.training_tasks(fewer.train).describe()
    with pytest.raises(TaskError, match="100000 classes for meta-training, but there are"):
        TrainConfig(data="glyphs", train_classes=100_000).splits()


def test_a_split_with_too_few_classes_is_told_with_its_remedy() -> None:
    with pytest.raises(TaskError, match=r"its 10 classes are split 4/3/3 .* for 5 ways: --way 3 will do"):
        TrainConfig(data="digits").splits()


def test_the_names_of_optimisers_and_schedules_are_all_there() -> None:
    assert set(get_args(OptimizerName)) == set(OPTIMIZERS)
    assert set(get_args(ScheduleName)) == set(SCHEDULES)


def test_the_outer_options_are_those_of_meta_train() -> None:
    assert set(TrainConfig().outer()) == set(OUTER) <= set(inspect.signature(meta_train).parameters)


def test_a_body_that_only_flattens() -> None:
    config = TrainConfig(data="digits", learner="mann", body="flatten", size=20)
    body = config.make_body((1, 20, 20))
    x = torch.rand(3, 1, 20, 20)
    assert torch.equal(body(x), x.flatten(1))
    assert (body.features, config.norm, list(body.parameters())) == (400, "none", [])


def test_strings_are_trained_on_more_ways_than_are_solved() -> None:
    """A head of one-hot labels is not."""
    options: dict[str, Any] = {"data": "glyphs", "learner": "lstm", "way": 5, "train_way": 9, "size": 16}
    for labels in ("strings", "one-hot"):
        config = TrainConfig(**options, settings={"labels": labels})
        data = config.splits().train
        if labels == "strings":
            assert config.training_tasks(data).batch(np.arange(2)).support.way == 9
        else:
            with pytest.raises(TaskError, match="has a head for 5 ways and cannot train on 9"):
                config.training_tasks(data)


def test_what_a_learner_and_its_data_usually_have() -> None:
    assert TrainConfig(learner="semi-protonet").unlabelled == 5
    assert TrainConfig(learner="semi-protonet", unlabelled=0).unlabelled == 0
    assert TrainConfig(learner="protonet").unlabelled == 0
    assert (TrainConfig(learner="mann").clip, TrainConfig(learner="maml").clip) == (10.0, None)
    assert TrainConfig(data="quickdraw").augment == "drawing"
    assert TrainConfig(data="quickdraw", augment="none").augment == "none"
    assert TrainConfig(data="quickdraw", learner="siamese").augment == "affine"
    assert TrainConfig(data="omniglot").augment == "none"


def test_pictures_too_small_for_a_net_are_told_before_any_is_read(tmp_path: Path) -> None:
    """There are none here, which would be told first."""
    before = torch.get_rng_state()
    with pytest.raises(UserError, match="14×14 are too small for 4 blocks"):
        TrainConfig(data="omniglot", size=14, data_dir=tmp_path).splits()
    assert torch.equal(torch.get_rng_state(), before)

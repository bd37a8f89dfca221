"""`MetaTrainer` trains as the command line does, on whatever classes it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

import quickstudy as qs
from quickstudy.errors import RunError, UserError
from quickstudy.outer.load_run import load_run

DRAWINGS = qs.data.glyphs(classes=30, samples_per_class=5)
OPTIONS = {
    "query": 2,
    "train_way": 4,
    "train_query": 2,
    "validation_tasks": 4,
    "threads": 1,
    "outer_lr": 0.01,
}


def trainer(**changes: Any) -> qs.MetaTrainer:
    options = {**OPTIONS, **changes.pop("options", {})}
    return qs.MetaTrainer("protonet", way=3, iterations=4, channels=4, options=options, **changes)


def weights(found: qs.MetaTrainer) -> dict[str, torch.Tensor]:
    return found.learner_.state_dict()


def test_it_trains_as_a_run_does(tmp_path: Path) -> None:
    found = trainer().fit(DRAWINGS)
    config = qs.TrainConfig(data="glyphs", learner="protonet", way=3, iterations=4, channels=4, **OPTIONS)
    qs.train(config, tmp_path / "a", data=DRAWINGS)
    expected = load_run(tmp_path / "a")[0].state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in weights(found).items())
    assert found.history_.iteration == 4
    assert found.config_.way == 3


def test_arrays_and_a_data_set_are_the_same() -> None:
    labels = np.repeat(DRAWINGS.names, 5)
    found = trainer().fit(DRAWINGS.x.numpy(), labels)
    expected = trainer().fit(qs.data.from_arrays(DRAWINGS.x, labels))
    assert all(torch.equal(v, weights(expected)[k]) for k, v in weights(found).items())


def test_a_folder_and_options_of_the_learner(drawings: Path, tmp_path: Path) -> None:
    found = trainer(options={"distance": "cosine", "query": 1, "validation_tasks": 2}).set_params(way=2)
    with pytest.raises(UserError, match=r"way 2|too few"):  # 5 classes are 3/1/1
        found.fit(drawings)
    found = trainer(options={"distance": "cosine"}, out=tmp_path / "a").fit(DRAWINGS)
    assert isinstance(found.learner_, qs.ProtoNet)
    assert found.learner_.distance == "cosine"
    assert (tmp_path / "a" / "summary.json").exists()
    again = clone(found).fit(DRAWINGS)  # goes on with the run, which is finished
    assert all(torch.equal(v, weights(found)[k]) for k, v in weights(again).items())
    with pytest.raises(RunError, match="was begun with seed=0, not 1"):
        clone(found).set_params(seed=1).fit(DRAWINGS)


def test_its_classifier_learns_new_classes_and_is_saved(tmp_path: Path) -> None:
    found = trainer().fit(DRAWINGS)
    unseen = qs.data.glyphs(classes=33, samples_per_class=5).subset([30, 31, 32])
    labels = np.repeat(list("abc"), 5)
    classifier = found.classifier().fit(unseen.x, labels)
    assert classifier.score(unseen.x, labels) > 0.5
    classifier.save(tmp_path / "c")
    again = qs.FewShotClassifier.load(tmp_path / "c")
    np.testing.assert_array_equal(again.predict_proba(unseen.x), classifier.predict_proba(unseen.x))


def test_its_score_is_that_of_evaluate() -> None:
    found = trainer().fit(DRAWINGS)
    unseen = qs.data.glyphs(classes=40, samples_per_class=5).subset(range(30, 40))
    source = qs.tasks(unseen, way=3, shot=1, seed=2)
    expected = qs.evaluate(found.learner_, source, n_tasks=10).accuracy
    assert found.score(unseen, n_tasks=10) == expected


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: trainer().fit(DRAWINGS.x.numpy()), r"need their classes: fit\(X, y\)"),
        (lambda: trainer().fit(DRAWINGS, [1]), "has its classes already"),
        (lambda: trainer().fit("no such data"), "no such data"),
        (lambda: trainer(options={"way": 3}).fit(DRAWINGS), "way is given by itself"),
        (lambda: trainer(options={"distanse": 3}).fit(DRAWINGS), "unknown option of protonet 'distanse'"),
        (lambda: trainer().set_params(learner="mamll").fit(DRAWINGS), "did you mean 'maml'"),
        (lambda: trainer().classifier(), "not fitted"),
        (lambda: trainer().fit(DRAWINGS).score("omniglot"), "not a name"),
    ],
)
def test_what_is_wrong_is_named(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()

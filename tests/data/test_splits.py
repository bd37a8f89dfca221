"""The ready-made Omniglot splits, known without the pictures."""

from __future__ import annotations

import hashlib
import json
from importlib import resources

import pytest

from quickstudy.data.omniglot import class_names, splits


def alphabets(classes: tuple[int, ...]) -> set[str]:
    names = class_names()
    return {names[c].split("/")[0] for c in classes}


def test_the_publishers_counts() -> None:
    assert len(class_names("background")) == 964
    assert len(class_names("evaluation")) == 659
    assert class_names() == class_names("background") + class_names("evaluation")
    assert len(set(class_names())) == 1623
    assert len({n.split("/")[0] for n in class_names("background")}) == 30
    assert len({n.split("/")[0] for n in class_names("evaluation")}) == 20


@pytest.mark.parametrize(
    ("how", "counts"),
    [("vinyals", [1028, 172, 423]), ("authors", [775, 189, 659]), ("alphabet", [926, 337, 360])],
)
def test_disjoint_and_complete(how: str, counts: list[int]) -> None:
    parts = splits()[how]
    assert [len(p) for p in parts] == counts
    assert sorted(c for p in parts for c in p) == list(range(1623))


def test_vinyals_comes_first() -> None:
    assert list(splits()) == ["vinyals", "authors", "alphabet"]


def test_vinyals_is_the_published_list() -> None:
    names = class_names()
    _, val, test = ([names[c] for c in part] for part in splits()["vinyals"])
    text = "\n".join([*sorted(val), "", *sorted(test)])
    recorded = json.loads((resources.files("quickstudy.data") / "splits/omniglot_vinyals.json").read_text())
    assert hashlib.sha256(text.encode()).hexdigest() == recorded["sha256"]
    assert recorded["sha256"] == "d3930dfdaaad180b2196b2dbf4683481d0c013e258d3869ab291a0205af91430"
    # Meta-training ends in the middle of an alphabet; every other alphabet is in one part only.
    train_and_test = alphabets(splits()["vinyals"][0]) & alphabets(splits()["vinyals"][2])
    assert train_and_test == {"Gurmukhi"}
    assert {n for n in test if n.startswith("Gurmukhi")} == {f"Gurmukhi/character{i}" for i in range(42, 46)}


def test_authors_keeps_the_evaluation_part_for_meta_test() -> None:
    names = class_names()
    train, val, test = splits()["authors"]
    assert tuple(names[c] for c in test) == class_names("evaluation")
    assert not alphabets(train) & alphabets(val)
    assert 0.15 < len(val) / 964 < 0.25


def test_alphabet_splits_whole_alphabets() -> None:
    train, val, test = map(alphabets, splits()["alphabet"])
    assert [len(train), len(val), len(test)] == [30, 10, 10]
    assert len(train | val | test) == 50

"""What the README says is so."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import quickstudy as qs
from quickstudy.app.cli import COMMANDS
from quickstudy.files import write_json
from quickstudy.learners import CONTROLS, LEARNERS
from quickstudy.tasks import Sinusoids

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def results_table() -> Any:
    """The script that makes the tables, as a module; fresh, for it may be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        for name in ("engine_tables", "results_table"):
            sys.modules.pop(name, None)
        return importlib.import_module("results_table")


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_tables_are_made_from_the_files(page: str):
    tables, text = results_table(), (ROOT / page).read_text()
    assert ("<!--" in text) == (page in tables.PAGES)
    if page in tables.PAGES:
        assert tables.with_tables(text, tables.PAGES[page]()) == text


def test_every_learner_is_in_its_table():
    assert all(f"`{name}`" in README for name in [*LEARNERS, *CONTROLS])


def test_commands_and_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for command in re.findall(r"^quickstudy (\w+)", README, re.MULTILINE):
        assert command in COMMANDS


def test_the_python_example_runs():
    """On the digits, in few steps; the words of the README otherwise."""
    example = re.search(r"```python\n(import quickstudy.*?)```", README, re.DOTALL).group(1)
    for old, new in {
        'qs.data.omniglot().split("vinyals")': "qs.data.digits(size=28).limit(30).split()",
        "way=5": "way=3",
        "channels=64": "channels=4",
        "iterations=3000": "iterations=2",
        "n_tasks=1000": "n_tasks=4",
    }.items():
        assert old in example
        example = example.replace(old, new)
    x, y = torch.rand(6, 1, 28, 28), torch.arange(6) % 3
    names = {"support_images": x, "support_labels": y, "query_images": x[:4]}
    exec(example, names)
    assert names["labels"].shape == (4,)
    assert names["history"].iteration == 2


def test_the_learner_of_the_readme_learns():
    """As prototypical networks do, but for the square."""
    names = {"qs": qs, "torch": torch}
    exec(
        re.search(r"```python\n(from quickstudy.learners import call.*?)```", README, re.DOTALL).group(1),
        names,
    )
    train, _, test = qs.data.digits(size=16).limit(30).split()
    torch.manual_seed(0)
    learner = names["NearestMean"](qs.nets.conv4(4, size=16))
    same = qs.ProtoNet(learner.body)
    before = qs.evaluate(learner, qs.tasks(test, way=3, shot=1), n_tasks=20)
    assert before.accuracy == qs.evaluate(same, qs.tasks(test, way=3, shot=1), n_tasks=20).accuracy
    assert before.statistics == "support"
    assert not before.transductive
    history = qs.meta_train(
        learner, qs.tasks(train, way=3, shot=1), iterations=20, meta_batch=2, outer_lr=0.01
    )
    assert history.iteration == 20
    assert qs.evaluate(learner, qs.tasks(test, way=3, shot=1), n_tasks=20).loss < before.loss


def test_linked_files_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_rule_of_the_docs_learns_its_rates():
    """The learner that docs/meta_gradients.md shows, word for word."""
    page = (ROOT / "docs" / "meta_gradients.md").read_text()
    names = {"qs": qs, "torch": torch}
    exec(re.search(r"```python\n(class MetaSGD.*?)```", page, re.DOTALL).group(1), names)
    learner = names["MetaSGD"](qs.nets.mlp(1, (8,)), way=1, inner_lr=0.01, steps=2)
    before = [rate.detach().clone() for rate in learner.rates]
    qs.meta_train(learner, Sinusoids(shot=5), iterations=2)
    assert all(not torch.equal(a, b) for a, b in zip(before, learner.rates, strict=True))
    fewer = names["MetaSGD"](qs.nets.mlp(2, (8,)), way=5).adapt([[0.0, 1.0], [1.0, 0.0]], [0, 1])
    assert fewer([[0.5, 0.2]]).shape == (1, 2)


def test_rows_become_tables(tmp_path: Path, monkeypatch) -> None:
    tables, results = results_table(), tmp_path / "results"
    monkeypatch.setattr(sys.modules["engine_tables"], "ROOT", tmp_path)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    assert tables.rates() == tables.semi_supervised() == tables.labelled("generalisation", "quickdraw") == ""
    told = {"accuracy": 0.9, "ci95": 0.01}
    results.mkdir()
    seeds = [{**told, "learner": "maml", "factor": 10.0, "train_seed": seed} for seed in (0, 1)]
    write_json(results / "rates.json", {"results": seeds, "regained": {"10": 0.75}})
    assert tables.rates().splitlines() == [
        "| learner | seed 0 | seed 1 |",
        "| --- | --- | --- |",
        "| `maml`, rates × 10 | 90.0 ± 1.0 | 90.0 ± 1.0 |",
        "",
        "Of what MAML loses Alpha MAML regains 75 % at rates × 10.",
    ]
    gain = {"gain_accuracy": 0.02, "gain_ci95": 0.002, "paper": 97.25, "paper_supervised": 94.62}
    rows = [{**told, **gain, "learner": "soft", "distractors": n} for n in (0, 5)]
    write_json(results / "semi-supervised.json", {"results": rows})
    assert tables.semi_supervised().splitlines() == [
        "| prototypes | no classes of distractors | 5 classes of distractors |",
        "| --- | --- | --- |",
        "| soft" + 2 * " | 90.0 ± 1.0, +2.0 ± 0.2 (paper 97.25, +2.6)" + " |",
    ]
    run = {"learner": "maml", "label": "52-classes", "parameters": 9000, "iterations": 800, "rising": True}
    run |= {"training_seconds": 900.0, "core_seconds": 590.0}
    rows = [
        {**told, **run, "training_mb": 512.3, "split": "test", "way": 5, "shot": 1},
        {**told, **run, "accuracy": None, "split": "train", "way": 5, "shot": 1},
    ]
    write_json(results / "generalisation.json", {"results": rows})
    usual = {**rows[0], "part": "quickdraw/maml", "label": ""}
    write_json(results / "learners.json", {"results": [usual, {**usual, "part": "quickdraw/anil"}]})
    assert tables.labelled("generalisation", "quickdraw").splitlines() == [
        "| learner | parameters | meta-steps | core-minutes | MB in training | 5-way 1-shot "
        "| 5-way 1-shot, classes of meta-training |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| `maml` | 9,000 | 800, rising | 10 | 512 | 90.0 ± 1.0 |  |",
        "| `maml`, 52 classes | 9,000 | 800, rising | 10 | 512 | 90.0 ± 1.0 | – |",
    ]

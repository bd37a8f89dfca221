"""`FewShotClassifier` answers as its learner does, whatever form examples have."""

from __future__ import annotations

import pickle
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import quickstudy as qs
from quickstudy.app.estimators import FewShotClassifier
from quickstudy.data.pictures import Pictures
from quickstudy.errors import RunError, UserError
from quickstudy.outer.load_run import load_run


@pytest.fixture
def files(drawings: Path) -> tuple[list[Path], list[str]]:
    found = sorted(drawings.rglob("*.png"))
    return found, [f.parent.name for f in found]


def test_it_is_found_by_who_looks_around() -> None:
    """Though it is loaded only when it is asked for."""
    assert {"FewShotClassifier", "FewShotRegressor", "MetaTrainer", "maml"} - set(dir(qs)) == {"maml"}
    assert "os" not in dir(qs)


def test_it_answers_as_the_run_does(run: Path, files: tuple[list[Path], list[str]]) -> None:
    x, y = files
    learner, _, _ = load_run(run)
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(f).convert("L")) for f in x]))[:, None]
    codes = torch.tensor([sorted(set(y)).index(label) for label in y])
    expected = learner.adapt(pixels[::2], codes[::2]).probabilities(pixels[1::2]).numpy()
    classifier = FewShotClassifier.from_run(run).fit(x[::2], y[::2])
    np.testing.assert_allclose(classifier.predict_proba(x[1::2]), expected, atol=1e-6)
    assert classifier.classes_.tolist() == sorted(set(y))
    assert classifier.predict(x[1::2]).tolist() == classifier.classes_[expected.argmax(1)].tolist()
    assert classifier.score(x[1::2], y[1::2]) == np.mean(classifier.predict(x[1::2]) == y[1::2])


def test_the_form_of_pictures_makes_no_difference(run: Path, files: tuple[list[Path], list[str]]) -> None:
    x, y = files
    grey = np.stack([np.asarray(Image.open(f).convert("L")) for f in x])
    expected = FewShotClassifier.from_run(run).fit(x, y).predict_proba(x)
    for form in (
        list(map(str, x)),
        [Image.open(f) for f in x],
        grey,
        grey[..., None],
        grey[:, None] / 255,
        grey.reshape(len(x), -1).astype(float),
        255 - grey,  # dark on light, which its examples show
    ):
        classifier = FewShotClassifier.from_run(run).fit(form, y)
        np.testing.assert_allclose(classifier.predict_proba(form), expected, atol=1e-5)


def test_queries_may_have_another_type_than_examples(run: Path, files: tuple[list[Path], list[str]]) -> None:
    """What is white among floats, files and pixels do not say."""
    x, y = files
    grey = np.stack([np.asarray(Image.open(f).convert("L")) for f in x])
    forms = [x, list(grey), grey, grey / 255, list(torch.from_numpy(grey / 255))]
    expected = FewShotClassifier.from_run(run).fit(x, y).predict_proba(x)
    for fitted in forms:
        classifier = FewShotClassifier.from_run(run).fit(fitted, y)
        for asked in forms:
            np.testing.assert_allclose(classifier.predict_proba(asked), expected, atol=1e-5)
    with pytest.raises(UserError, match="whole numbers and of floats"):
        FewShotClassifier.from_run(run).fit([grey[0], *(grey[1:] / 255)], y)


def test_a_dark_query_alone_is_read_as_its_examples_were() -> None:
    x = np.zeros((4, 64))
    x[2:] = 200.0
    classifier = FewShotClassifier(qs.ProtoNet(torch.nn.Flatten()), pictures=Pictures((1, 8, 8)))
    classifier.fit(x, ["dark", "dark", "light", "light"])
    assert classifier.predict(np.full((1, 64), 2.0)).tolist() == ["dark"]  # as a fraction it were white


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_fitting_in_parts_is_fitting_at_once(data: st.DataObject) -> None:
    """Any parts, in which classes appear in any order, and later ones lie among those of before."""
    n = data.draw(st.integers(2, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, y = rng.normal(size=(n, 3)), np.array(list("dbacfe"))[rng.integers(0, 6, n)]
    cuts = data.draw(st.lists(st.integers(1, n - 1), max_size=3, unique=True).map(sorted))
    whole = FewShotClassifier(qs.ProtoNet(torch.nn.Flatten())).fit(x, y)
    parts = FewShotClassifier(qs.ProtoNet(torch.nn.Flatten()))
    for x_part, y_part in zip(np.split(x, cuts), np.split(y, cuts), strict=True):
        parts.partial_fit(x_part, y_part)
    assert parts.classes_.tolist() == whole.classes_.tolist()
    q = rng.normal(size=(5, 3))
    np.testing.assert_allclose(parts.predict_proba(q), whole.predict_proba(q), atol=1e-6)
    assert parts.fit(x, y).predict(q).tolist() == whole.predict(q).tolist()


def test_a_class_that_was_only_named_has_no_probability() -> None:
    classifier = FewShotClassifier(qs.ProtoNet(torch.nn.Flatten()))
    classifier.partial_fit([[0.0], [9.0]], [3, 7], classes=[1, 3, 5, 7])
    assert classifier.classes_.tolist() == [1, 3, 5, 7]
    p = classifier.predict_proba([[1.0], [8.0]])
    assert (p[:, [0, 2]] == 0).all()
    np.testing.assert_allclose(p.sum(1), 1)
    assert classifier.predict([[1.0], [8.0]]).tolist() == [3, 7]
    assert classifier.partial_fit([[4.0]], [5]).predict([[4.5]]).tolist() == [5]


def test_it_works_where_scikit_learns_tools_do(run: Path, files: tuple[list[Path], list[str]]) -> None:
    x, y = files
    classifier = FewShotClassifier.from_run(run)
    assert cross_val_score(classifier, x, y, cv=2).shape == (2,)
    copy = clone(classifier)
    assert copy.learner is not classifier.learner
    assert copy.pictures == classifier.pictures
    grey = np.stack([np.asarray(Image.open(f).convert("L")) for f in x])
    piped = make_pipeline(FunctionTransformer(lambda pictures: 255 - pictures), classifier).fit(grey, y)
    assert piped.predict(grey).tolist() == FewShotClassifier.from_run(run).fit(grey, y).predict(grey).tolist()
    search = GridSearchCV(classifier, {"polarity": ["dark-on-light", "light-on-dark"]}, cv=2).fit(grey, y)
    scores = {
        p: cross_val_score(clone(classifier).set_params(polarity=p), grey, y, cv=2).mean()
        for p in ("dark-on-light", "light-on-dark")
    }
    assert search.best_score_ == pytest.approx(max(scores.values()))
    assert scores[search.best_params_["polarity"]] == pytest.approx(max(scores.values()))


def test_queries_of_another_polarity_than_the_examples_are_told(
    run: Path, files: tuple[list[Path], list[str]]
) -> None:
    x, y = files
    grey = np.stack([np.asarray(Image.open(f).convert("L")) for f in x])
    classifier = FewShotClassifier.from_run(run).fit(grey, y)
    classifier.predict(grey)
    with pytest.warns(UserWarning, match=f"2 of {len(grey)} pictures are of another polarity"):
        classifier.predict(np.concatenate([grey[:-2], 255 - grey[-2:]]))
    with pytest.warns(UserWarning, match="all pictures are of another polarity"):
        classifier.predict(255 - grey)
    classifier.set_params(polarity="dark-on-light").fit(grey, y).predict(255 - grey)  # it was said


def test_a_pickled_one_answers_the_same(run: Path, files: tuple[list[Path], list[str]]) -> None:
    x, y = files
    classifier = FewShotClassifier.from_run(run).fit(x, y)
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(x), classifier.predict_proba(x))


@pytest.mark.parametrize("labels", [list("abcde"), [5, 3, 8, 1, 2], [0.5, 1.5, 2.5, 3.0, 4.0]])
def test_a_saved_one_answers_the_same(
    labels: list[Any], run: Path, files: tuple[list[Path], list[str]], tmp_path: Path
) -> None:
    x, names = files
    y = [labels[sorted(set(names)).index(name)] for name in names]
    if isinstance(labels[0], float):
        y = [int(label * 2) for label in y]
    classifier = FewShotClassifier.from_run(run, polarity="dark-on-light").fit(x[::2], y[::2])
    classifier.save(tmp_path / "a.safetensors")
    again = FewShotClassifier.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(again.predict_proba(x), classifier.predict_proba(x))
    assert again.classes_.dtype == classifier.classes_.dtype
    assert again.predict(x).tolist() == classifier.predict(x).tolist()
    assert again.get_params().keys() == classifier.get_params().keys()
    assert (again.pictures, again.polarity) == (classifier.pictures, classifier.polarity)
    more = again.partial_fit(x[1::2], y[1::2]).predict_proba(x)
    np.testing.assert_array_equal(more, classifier.partial_fit(x[1::2], y[1::2]).predict_proba(x))


def test_what_is_saved_while_others_adapt_are_the_learner_s_weights(tmp_path: Path) -> None:
    classifier = untrained().fit(GREY, [0, 1, 2] * 2)
    learner, done = classifier.learner, threading.Event()
    assert learner is not None
    wanted = {f"learner.{k}": v.clone() for k, v in learner.state_dict().items()}

    def adapting() -> None:
        while not done.is_set():
            learner.adapt(classifier.support_.x, classifier.support_.y)

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(adapting)
        try:
            for i in range(40):
                classifier.save(tmp_path / f"{i}.safetensors")
        finally:
            done.set()
        busy.result(timeout=30)
    for i in range(40):
        found = load_file(tmp_path / f"{i}.safetensors")
        assert all(torch.equal(found[k], v) for k, v in wanted.items())


def test_one_of_a_learner_of_ones_own_is_saved_without_it(tmp_path: Path) -> None:
    def own() -> qs.Learner:
        return qs.R2D2(qs.nets.mlp(2, (8,)))

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 2)), rng.integers(0, 3, 9)
    classifier = FewShotClassifier(own()).fit(x, y)
    path = tmp_path / "a.safetensors"
    classifier.save(path)
    with pytest.raises(UserError, match=r"of a learner of your own: make it again"):
        FewShotClassifier.load(path)
    again = FewShotClassifier.load(path, learner=own())
    np.testing.assert_array_equal(again.predict_proba(x), classifier.predict_proba(x))
    with pytest.raises(RunError, match="does not hold a fitted FewShotClassifier"):
        FewShotClassifier.load(path, learner=qs.R2D2(qs.nets.mlp(2, (9,))))
    with pytest.raises(ValueError, match="X has 3 features"):
        again.predict(np.zeros((1, 3)))


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.99])
def test_a_damaged_file_is_told(place: float, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    FewShotClassifier(qs.ProtoNet(torch.nn.Flatten())).fit([[0.0], [1.0]], [0, 1]).save(path)
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw))] ^= 1
    path.write_bytes(raw)
    with pytest.raises(RunError, match=r"a\.safetensors"):
        FewShotClassifier.load(path, learner=qs.ProtoNet(torch.nn.Flatten()))


def test_other_files_are_no_estimators(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a saved estimator"):
        FewShotClassifier.load(run / "best.safetensors")
    with pytest.raises(RunError, match="there is no such file"):
        FewShotClassifier.load(tmp_path / "no")
    qs.FewShotRegressor(qs.R2D2(torch.nn.Flatten())).fit([[0.0]], [1.0]).save(tmp_path / "r")
    with pytest.raises(RunError, match=r"holds a FewShotRegressor: FewShotRegressor\.load reads it"):
        FewShotClassifier.load(tmp_path / "r")


def untrained() -> FewShotClassifier:
    return FewShotClassifier(qs.MAML(qs.nets.conv4(4, size=16), way=3), pictures=Pictures((1, 16, 16)))


def rows(**options: Any) -> FewShotClassifier:
    return FewShotClassifier(qs.ProtoNet(torch.nn.Flatten()), **options)


GREY = np.random.default_rng(0).random((6, 16, 16))
ROWS = GREY.reshape(6, -1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: FewShotClassifier().fit([[0.0]], [0]), "needs a meta-trained learner, not NoneType"),
        (lambda: FewShotClassifier("runs/a").fit([[0.0]], [0]), r"FewShotClassifier\.from_run\('runs/a'\)"),
        (lambda: untrained().predict(GREY), "not fitted"),
        (lambda: untrained().save("x"), "not fitted"),
        (lambda: untrained().fit(GREY, [0, 1, 2, 0, 1]), "inconsistent numbers of samples"),
        (lambda: untrained().fit(GREY, [0, 1, 2, 3, 0, 1]), "at most 3 ways, not 4.*proto-maml"),
        (lambda: untrained().fit(ROWS[:, :30], [0, 1, 2] * 2), "rows of 30 numbers"),
        (lambda: untrained().fit(GREY, [0.5, 1.5, 2.5] * 2), "Unknown label type|continuous"),
        (lambda: untrained().fit(GREY, None), "requires y"),
        (lambda: untrained().fit(GREY * np.nan, [0, 1, 2] * 2), "NaN"),
        (lambda: untrained().fit(GREY, [0, 1, 2] * 2, unlabelled=GREY), "from labelled examples only"),
        (lambda: untrained().set_params(steps=-1).fit(GREY, [0, 1, 2] * 2), "steps must be at least 0"),
        (lambda: rows(steps=3).fit(ROWS, [0, 1, 2] * 2), "ProtoNet takes no inner steps"),
        (lambda: rows(transductive=True).fit(ROWS, [0, 1, 2] * 2), "no batch normalisation"),
        (lambda: rows().fit(ROWS, [1, 2] * 3).partial_fit(ROWS, list("ab") * 3), "numbers or text, not both"),
        (lambda: untrained().fit("a.png", ["a"]), "one picture where several"),
        (lambda: untrained().fit(GREY[:0], []), "no examples"),
        (lambda: untrained().fit([], []), "no examples|0 sample|minimum of 1"),
        (lambda: untrained().fit(ROWS, [0, 1, 2] * 2).predict(ROWS[:, :64]), "64 features"),
    ],
)
def test_what_is_wrong_is_named(call: Callable[[], Any], said: str) -> None:
    with pytest.raises((UserError, ValueError, NotFittedError), match=said):
        call()


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (ROWS[:4], list("defg")),
        (ROWS[:1, :10], ["a"]),
        (ROWS[:1] * np.nan, ["a"]),
        (ROWS[:1], ["a", "b"]),
        (ROWS[:1], [0.5]),
    ],
    ids=["more classes than it can tell apart", "other pictures", "NaN", "two labels", "a fraction"],
)
def test_a_mistake_in_what_is_given_loses_nothing(x: np.ndarray, y: list[object]) -> None:
    classifier = untrained().fit(ROWS, list("abcabc"))
    before = classifier.predict_proba(ROWS)
    for fit in (classifier.partial_fit, classifier.fit):
        with pytest.raises(ValueError, match=r"\w"):
            fit(x, y)
        np.testing.assert_array_equal(classifier.predict_proba(ROWS), before)
        assert classifier.classes_.tolist() == list("abc")
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(ROWS), before)


def test_steps_and_transduction_are_parameters(tmp_path: Path) -> None:
    """They are searched as any other, reach the learner, leave the one given as it is, and are kept."""
    given = untrained()
    assert isinstance(given.learner, qs.MAML)
    x = np.random.default_rng(0).random((9, 16, 16), np.float32)
    y, support = list("abcabcabc"), (torch.from_numpy(x[:, None]), torch.tensor([0, 1, 2] * 3))
    seen = []
    for steps, transductive in ((None, False), (0, False), (7, False), (7, True)):
        classifier = clone(given).set_params(steps=steps, transductive=transductive).fit(x, y)
        learner = qs.MAML(qs.nets.conv4(4, size=16), way=3, test_steps=steps)
        learner.load_state_dict(given.learner.state_dict())
        learner.statistics = "batch" if transductive else "support"
        p = classifier.predict_proba(x[:4])
        np.testing.assert_allclose(p, learner.adapt(*support).probabilities(x[:4, None]).numpy(), atol=1e-5)
        for again in (pickle.loads(pickle.dumps(classifier)), clone(classifier).fit(x, y)):
            assert (again.learner_.steps_in_use, again.learner_.transductive) == (
                given.learner.steps if steps is None else steps,
                transductive,
            )
            np.testing.assert_allclose(again.predict_proba(x[:4]), p, atol=1e-6)
        classifier.set_params(steps=99).save(tmp_path / "c")  # which the next fit is to take
        found = FewShotClassifier.load(tmp_path / "c", learner=untrained().learner)
        np.testing.assert_allclose(found.predict_proba(x[:4]), p, atol=1e-6)
        assert (found.steps, found.transductive) == (steps, transductive)
        seen.append(p)
    assert not any(np.allclose(a, b) for a, b in pairwise(seen))
    assert given.learner.test_steps is None
    assert given.learner.statistics == "support"
    assert repr(found) == "FewShotClassifier(MAML, pictures=1×16×16, steps=7, transductive=True)"
    search = GridSearchCV(given, {"steps": [0, 3]}, cv=3).fit(x, y)
    assert search.best_params_["steps"] in (0, 3)
    assert search.best_estimator_.learner_.steps_in_use == search.best_params_["steps"]


def test_many_classes_of_one_example_are_what_it_is_for() -> None:
    """scikit-learn warns of more than twenty examples whose labels are mostly different."""
    x = np.eye(40)
    assert rows().fit(x, np.arange(40)).predict(x).tolist() == list(range(40))


def test_unlabelled_examples_are_learned_from(files: tuple[list[Path], list[str]]) -> None:
    x, y = files
    learner = qs.SemiProtoNet(qs.nets.conv4(4))
    pictures = Pictures((1, 28, 28))
    alone = FewShotClassifier(learner, pictures=pictures).fit(x[::5], y[::5])
    helped = FewShotClassifier(learner, pictures=pictures).fit(x[::5], y[::5], unlabelled=x)
    assert not np.allclose(alone.predict_proba(x), helped.predict_proba(x))
    grey = torch.from_numpy(pictures.of(x))
    codes = torch.arange(5)
    expected = learner.adapt(qs.Support(grey[::5], codes, unlabelled=grey)).probabilities(grey)
    np.testing.assert_allclose(helped.predict_proba(x), expected.numpy(), atol=1e-6)


def test_a_run_that_goes_on_is_told(run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "a")
    (tmp_path / "a" / "summary.json").unlink()
    with pytest.warns(UserWarning, match="has not come to its end"):
        FewShotClassifier.from_run(tmp_path / "a")


def test_the_example_of_the_readme_runs(
    run: Path, files: tuple[list[Path], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    found = re.search(r"```python\n(classifier = .*?)```", readme, re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(run)
    names: dict[str, Any] = {"qs": qs, "files": files[0], "names": files[1], "new_files": files[0][:3]}
    exec(found.group(1), names)
    assert len(names["classifier"].classes_) == 5
    assert {p.name for p in tmp_path.iterdir()} >= {"signs.safetensors"}


def test_a_file_does_not_choose_what_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner of the user's own is made again only where the program has imported its module."""
    source = "import quickstudy as qs\n\n\nclass Mine(qs.ProtoNet):\n    pass\n"
    (tmp_path / "studied_elsewhere.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"samples_per_class": 6, "channels": 4, "iterations": 2, "query": 2, "validation_tasks": 2}
    config = qs.TrainConfig(data="glyphs", learner="studied_elsewhere:Mine", threads=1, **options)
    qs.train(config, tmp_path / "run")
    x, y = np.zeros((4, 28, 28), np.uint8), [0, 0, 1, 1]
    x[2:, 10:20] = 255
    classifier = qs.FewShotClassifier.from_run(tmp_path / "run").fit(x, y)
    classifier.save(tmp_path / "a.safetensors")
    found = qs.FewShotClassifier.load(tmp_path / "a.safetensors")
    np.testing.assert_allclose(found.predict_proba(x), classifier.predict_proba(x), atol=1e-6)
    monkeypatch.delitem(sys.modules, "studied_elsewhere")
    with pytest.raises(UserError, match="import studied_elsewhere first, if you trust it"):
        qs.FewShotClassifier.load(tmp_path / "a.safetensors")
    assert "studied_elsewhere" not in sys.modules

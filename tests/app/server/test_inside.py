"""What is to be seen inside is what the method's own arithmetic gives."""

from __future__ import annotations

import base64
import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.decomposition import PCA

import quickstudy as qs
from quickstudy.app.server import inside as inside_module
from quickstudy.app.server.inside import inside
from quickstudy.learners.descent import DescentLearner

from .drawn import UNSEEN, drawing, examples, sent, serving
from .test_api import fitted


def looked(client: httpx.Client, id: str, *queries: np.ndarray) -> dict[str, Any]:
    answer = client.post(f"/classifiers/{id}/inside", json={"images": [sent(x) for x in queries]})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_course_is_that_of_learners_of_fewer_steps(client: httpx.Client, maml_run: Path) -> None:
    asked = {"run": "maml", "examples": examples(), "options": {"steps": 3}}
    id = client.post("/classifiers", json=asked).json()["id"]
    query = drawing(41, 6)
    found = looked(client, id, query)
    assert (found["kind"], found["map"]) == ("steps", None)
    assert [step["step"] for step in found["steps"]] == [0, 1, 2, 3]
    classifier = fitted(maml_run)
    x, y = classifier.support_.x, classifier.support_.y
    for told in found["steps"]:
        assert isinstance(classifier.learner, DescentLearner)
        classifier.learner.test_steps = told["step"]
        predictor = classifier.learner.adapt(x, y)
        output = predictor(x)
        assert told["loss"] == pytest.approx(float(F.cross_entropy(output, y)), abs=1e-4)
        assert told["accuracy"] == pytest.approx(float((output.argmax(-1) == y).float().mean()), abs=1e-6)
        (p,) = predictor.probabilities(torch.from_numpy(query)[None, None]).tolist()
        assert list(told["probabilities"][0].values()) == pytest.approx(p, abs=1e-4)


def test_nobody_waits_for_who_looks_inside(maml_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = fitted(maml_run)
    learner, support, steps = classifier.learner, classifier.support_, inside_module.descended
    assert learner is not None

    def slowly(*given: Any) -> None:
        with ThreadPoolExecutor(1) as other:
            other.submit(learner.adapt, support.x, support.y).result(timeout=20)
        steps(*given)

    monkeypatch.setattr(inside_module, "descended", slowly)
    assert inside(classifier, [])["kind"] == "steps"


def test_a_long_course_is_told_in_few_points(client: httpx.Client) -> None:
    asked = {"run": "maml", "examples": examples(1), "options": {"steps": 200}}
    id = client.post("/classifiers", json=asked).json()["id"]
    steps = [step["step"] for step in looked(client, id)["steps"]]
    assert (steps[0], steps[-1], len(steps)) == (0, 200, 21)


def test_a_map_is_of_the_plane_of_the_examples(client: httpx.Client, run: Path, made: str) -> None:
    queries = np.stack([drawing(c, 6) for c in UNSEEN])
    found = looked(client, made, *queries)
    assert (found["kind"], found["steps"]) == ("map", None)
    classifier = fitted(run)
    assert isinstance(classifier.learner, qs.ProtoNet)
    with torch.no_grad():
        z, embed, _ = classifier.learner.embedded(qs.Support.of(classifier.support_.x, classifier.support_.y))
        q = embed(torch.from_numpy(queries)[:, None].float() / 255).numpy()
    z, labels = z.numpy(), np.array([point["label"] for point in found["map"]["examples"]])
    assert labels.tolist() == [f"sign {c}" for c in UNSEEN for _ in range(3)]
    pca = PCA(2).fit(z)
    assert found["map"]["shown"] == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-4)
    means = np.stack([z[labels == label].mean(0) for label in dict.fromkeys(labels)])

    def told(name: str) -> np.ndarray:
        return np.array([[point["x"], point["y"]] for point in found["map"][name]])

    wanted = pca.transform(z)
    signs = np.sign((told("examples") * wanted).sum(0))
    scale = np.abs(wanted).max()
    for name, features in (("examples", z), ("means", means), ("queries", q)):
        np.testing.assert_allclose(told(name), signs * pca.transform(features), atol=1e-4 * scale)


def test_what_shows_nothing_says_so(tmp_path: Path, run: Path) -> None:
    config = qs.TrainConfig(data="glyphs", samples_per_class=6, learner="pixel-nn", query=2, threads=1)
    qs.train(config, tmp_path / "pixels")
    with serving([tmp_path / "pixels"]) as client:
        assert client.get("/runs").json()["runs"][0]["shows"] is None
        id = client.post("/classifiers", json={"examples": examples(1)}).json()["id"]
        answer = client.post(f"/classifiers/{id}/inside", json={"images": []})
    assert answer.status_code == 422
    assert answer.json()["error"] == "there is nothing to see of how PixelNN learns"


@pytest.mark.parametrize(
    ("name", "options"),
    [(None, {}), ("maml", {}), ("maml", {"steps": 9}), ("maml", {"steps": 3, "transductive": True})],
)
def test_a_downloaded_classifier_answers_as_here(
    client: httpx.Client, tmp_path: Path, name: str | None, options: dict[str, Any]
) -> None:
    asked = {"run": name, "examples": examples(), "options": options}
    made = client.post("/classifiers", json=asked).json()["id"]
    answer = client.get(f"/classifiers/{made}/file")
    assert answer.headers["content-type"] == "application/octet-stream"
    (tmp_path / "a.safetensors").write_bytes(answer.content)
    classifier = qs.FewShotClassifier.load(tmp_path / "a.safetensors")
    assert classifier.steps == options.get("steps")
    queries = np.stack([drawing(c, 6) for c in UNSEEN])
    told = client.post(f"/classifiers/{made}/predict", json={"images": [sent(x) for x in queries]}).json()
    p = [list(prediction["probabilities"].values()) for prediction in told["predictions"]]
    np.testing.assert_allclose(classifier.predict_proba(queries), p, atol=1e-5)
    assert client.get("/classifiers/none/file").status_code == 404


def pixels(told: dict[str, str]) -> np.ndarray:
    """The picture that a client is given."""
    raw = told["image"].removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(raw))))


def test_a_task_is_one_that_evaluate_measures_on(client: httpx.Client, run: Path) -> None:
    """Its pictures dark on light, as one draws; and the server answers it as the learner does."""
    sizes = {"way": 3, "shot": 2, "query": 2, "number": 17}
    told = client.post("/tasks", json=sizes).json()
    learner, config, _ = qs.load_run(run)
    classes = config.splits().test
    task = config.problem(classes, seed=2, way=3, shot=2, query=2).task(17)
    for name, part in (("examples", task.support), ("queries", task.query)):
        x = np.stack([pixels(one) for one in told[name]])
        np.testing.assert_array_equal(255 - x, (part.x[:, 0] * 255).round().numpy())
    assert {one["label"] for one in told["examples"]} <= set(classes.names)
    for one in (*told["examples"], *told["queries"]):
        own = classes.examples(classes.names.index(one["label"]))[:, 0].numpy()
        assert (own == 255 - pixels(one)).all((1, 2)).any()  # of the class that it is said to be of
    id = client.post("/classifiers", json={"examples": told["examples"]}).json()["id"]
    asked = {"images": [one["image"] for one in told["queries"]]}
    found = client.post(f"/classifiers/{id}/predict", json=asked).json()["predictions"]
    names = sorted({one["label"] for one in told["examples"]})
    wanted = learner.adapt(task.support).probabilities(task.query.x).numpy()
    order = [told["examples"][task.support.y.tolist().index(c)]["label"] for c in range(3)]
    p = np.array([[one["probabilities"][label] for label in order] for one in found])
    assert names == list(found[0]["probabilities"])
    np.testing.assert_allclose(p, wanted, atol=1e-4)


def test_a_task_of_any_number_and_tasks_that_cannot_be(client: httpx.Client, maml_run: Path) -> None:
    first, second = (client.post("/tasks", json={"run": "maml"}).json() for _ in range(2))
    assert first["number"] != second["number"]
    assert (len(first["examples"]), len(first["queries"])) == (5, 25)
    for sizes, said in (
        ({"way": 60, "query": 10}, "600 queries: a task may have 256"),
        ({"shot": 300}, "1500 examples: a task may have 1000"),
        ({"shot": 6}, "too few for 6 shots"),
    ):
        answer = client.post("/tasks", json=sizes)
        assert answer.status_code == 413
        assert said in answer.json()["error"]


def test_controls_learn_the_same_examples(run: Path, tmp_path: Path) -> None:
    """Pretrained where `evaluate --floors` left a net, and with the settings that were chosen there."""
    shutil.copytree(run, tmp_path / "a")
    with serving([tmp_path / "a"]) as client:
        assert client.get("/runs").json()["runs"][0]["controls"] == ["scratch"]
        asked: dict[str, Any] = {"examples": examples(), "options": {"control": "pretrain-finetune"}}
        answer = client.post("/classifiers", json=asked)
        assert (answer.status_code, "unknown control" in answer.json()["error"]) == (422, True)
    _, config, _ = qs.load_run(tmp_path / "a")
    splits = config.splits()
    rows = qs.floors(
        config,
        splits,
        source=config.problem(splits.test),
        names=["scratch", "pretrain-finetune"],
        n_tasks=4,
        search_tasks=2,
        pretrain_iterations=5,
        cache=tmp_path / "a" / "floors",
    )
    with serving([tmp_path / "a"]) as client:
        assert client.get("/runs").json()["runs"][0]["controls"] == ["scratch", "pretrain-finetune"]
        for row in rows:
            asked = {"examples": examples(), "options": {"control": row.name}}
            id = client.post("/classifiers", json=asked).json()["id"]
            assert looked(client, id)["steps"][-1]["step"] == row.chosen["steps"]
            (tmp_path / row.name).write_bytes(client.get(f"/classifiers/{id}/file").content)
            loaded = qs.FewShotClassifier.load(tmp_path / row.name)
            answer = client.post(f"/classifiers/{id}/predict", json={"images": [sent(drawing(41, 6))]})
            told = list(answer.json()["predictions"][0]["probabilities"].values())
            assert loaded.predict_proba(drawing(41, 6)[None])[0].tolist() == pytest.approx(told, abs=1e-4)
        wrong = {"examples": examples(), "options": {"control": "scratch", "steps": 3}}
        assert "it takes no options" in client.post("/classifiers", json=wrong).json()["error"]

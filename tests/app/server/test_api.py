"""What the API answers is what the estimator would; classifiers come, grow and go."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import quickstudy as qs
from quickstudy.app.server import Models
from quickstudy.app.server.store import Store
from quickstudy.errors import UserError

from .drawn import API, UNSEEN, drawing, examples, sent, serving


def fitted(run: Path, shots: int = 3) -> qs.FewShotClassifier:
    x = np.stack([drawing(c, i) for c in UNSEEN for i in range(shots)])
    return qs.FewShotClassifier.from_run(run).fit(x, [f"sign {c}" for c in UNSEEN for _ in range(shots)])


def test_it_answers_as_the_estimator(client: httpx.Client, run: Path, made: str) -> None:
    queries = np.stack([drawing(c, 5) for c in UNSEEN])
    answer = client.post(f"/classifiers/{made}/predict", json={"images": [sent(x) for x in queries]})
    classifier = fitted(run)
    p = classifier.predict_proba(queries)
    for told, row in zip(answer.json()["predictions"], p, strict=True):
        assert told["label"] == classifier.classes_[row.argmax()]
        assert list(told["probabilities"]) == classifier.classes_.tolist()
        np.testing.assert_allclose(list(told["probabilities"].values()), row, atol=1e-5)
        assert told["uncertainty"] == pytest.approx(-(row * np.log(row)).sum() / np.log(5), abs=1e-4)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP", "data url"])
def test_pictures_of_any_kind_and_size(client: httpx.Client, made: str, kind: str) -> None:
    picture = Image.fromarray(255 - drawing(41, 6)).resize((112, 112)).convert("RGB")
    image = sent(picture, "PNG" if kind == "data url" else kind)
    image = f"data:image/png;base64,{image}" if kind == "data url" else image
    answer = client.post(f"/classifiers/{made}/predict", json={"images": [image]})
    assert answer.status_code == 200, answer.text


def test_examples_are_added(client: httpx.Client, run: Path, made: str) -> None:
    more = [
        {"label": "sign 40", "image": sent(drawing(40, 4))},
        {"label": "new", "image": sent(drawing(3, 0))},
    ]
    answer = client.post(f"/classifiers/{made}/examples", json={"examples": more})
    assert {c["label"]: c["examples"] for c in answer.json()["classes"]} == {
        **{f"sign {c}": 3 for c in UNSEEN},
        "sign 40": 4,
        "new": 1,
    }
    classifier = fitted(run).partial_fit([drawing(40, 4), drawing(3, 0)], ["sign 40", "new"])
    p = classifier.predict_proba(drawing(3, 1)[None])[0]
    answer = client.post(f"/classifiers/{made}/predict", json={"images": [sent(drawing(3, 1))]})
    found = answer.json()["predictions"][0]["probabilities"]
    np.testing.assert_allclose([found[label] for label in classifier.classes_], p, atol=1e-5)


def test_a_mistake_in_what_is_added_loses_nothing(client: httpx.Client, made: str) -> None:
    before = client.get(f"/classifiers/{made}").json()["classes"]
    bad = [{"label": "x", "image": sent(drawing(3, 0))}, {"label": "y", "image": "AAAA"}]
    answer = client.post(f"/classifiers/{made}/examples", json={"examples": bad})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("example 1: not a picture")
    assert client.get(f"/classifiers/{made}").json()["classes"] == before


def test_steps_and_transduction_are_options(client: httpx.Client, maml_run: Path) -> None:
    def answers(**options: object) -> list[float]:
        asked = {"run": "maml", "examples": examples(), "options": options}
        answer = client.post("/classifiers", json=asked)
        assert answer.status_code == 201, answer.text
        assert answer.json()["options"] == {"steps": None, "transductive": False, "control": None, **options}
        images = [sent(drawing(c, 5)) for c in UNSEEN]
        found = client.post(f"/classifiers/{answer.json()['id']}/predict", json={"images": images})
        return [p for row in found.json()["predictions"] for p in row["probabilities"].values()]

    queries = np.stack([drawing(c, 5) for c in UNSEEN])
    classifier = fitted(maml_run)
    np.testing.assert_allclose(answers(), classifier.predict_proba(queries).ravel(), atol=1e-5)
    learner = classifier.learner
    assert isinstance(learner, qs.MAML)
    learner.test_steps = 7
    classifier = fitted(maml_run).set_params(learner=learner)
    x = np.stack([drawing(c, i) for c in UNSEEN for i in range(3)])
    classifier.fit(x, [f"sign {c}" for c in UNSEEN for _ in range(3)])
    np.testing.assert_allclose(answers(steps=7), classifier.predict_proba(queries).ravel(), atol=1e-5)
    learner.test_steps, learner.statistics = None, "batch"
    classifier.fit(x, [f"sign {c}" for c in UNSEEN for _ in range(3)])
    np.testing.assert_allclose(
        answers(transductive=True), classifier.predict_proba(queries).ravel(), atol=1e-5
    )
    np.testing.assert_allclose(answers(), fitted(maml_run).predict_proba(queries).ravel(), atol=1e-5)


def test_classifiers_are_listed_and_forgotten(client: httpx.Client, made: str) -> None:
    assert [c["id"] for c in client.get("/classifiers").json()["classifiers"]] == [made]
    assert client.get("/health").json()["classifiers"] == 1
    assert client.delete(f"/classifiers/{made}").json() == {"deleted": made}
    for answer in (
        client.get(f"/classifiers/{made}"),
        client.delete(f"/classifiers/{made}"),
        client.post(f"/classifiers/{made}/predict", json={"images": [sent(drawing(1, 1))]}),
        client.post(f"/classifiers/{made}/examples", json={"examples": examples()}),
    ):
        assert answer.status_code == 404
        assert "no such classifier" in answer.json()["error"]


def test_the_page_can_be_looked_for(client: httpx.Client) -> None:
    home = str(client.base_url).removesuffix("api/v1/")
    found = httpx.head(home)
    assert (found.status_code, found.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert int(found.headers["content-length"]) == len(httpx.get(home).content)
    assert found.content == b""


def test_methods_that_a_client_makes_up_are_one(client: httpx.Client) -> None:
    for name in ("ZAP1", "ZAP2"):
        assert client.request(name, "/health").status_code == 405
    text = client.get("/metrics").text
    assert "ZAP" not in text
    assert 'method="ANY",path="/api/v1/health",status="405"} 2' in text


def test_a_store_is_bounded_and_forgets() -> None:
    now = [0.0]
    store = Store(most=3, idle=10, clock=lambda: now[0])
    ids = [store.add("a", {}, qs.FewShotClassifier()).id for _ in range(3)]
    assert store.get(ids[0]) is not None  # now the one used last
    store.add("a", {}, qs.FewShotClassifier())
    assert store.get(ids[1]) is None
    assert store.get(ids[0]) is not None
    assert len(store) == 3
    now[0] = 9
    assert store.get(ids[2]) is not None
    now[0] = 11
    assert [entry.id for entry in store] == [ids[2]]
    assert store.remove(ids[2])
    assert not store.remove(ids[2])
    assert len(set(ids)) == 3


def test_predictions_asked_for_together_are_made_together(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    inner = qs.FewShotClassifier.predict_proba
    begun, go_on = threading.Event(), threading.Event()

    def slow(self: qs.FewShotClassifier, x: list[object]) -> np.ndarray:
        calls.append(len(x))
        begun.set()
        assert go_on.wait(20)
        return inner(self, x)

    store = Store(9, 60)
    monkeypatch.setattr("quickstudy.app.server.api.Store", lambda *_: store)
    with serving([run]) as client:
        made = client.post("/classifiers", json={"examples": examples()}).json()["id"]
        images = [sent(drawing(c, 5)) for c in UNSEEN]
        expected = client.post(f"/classifiers/{made}/predict", json={"images": images}).json()
        monkeypatch.setattr(qs.FewShotClassifier, "predict_proba", slow)
        answers: dict[int, object] = {}

        def ask(i: int) -> None:
            answer = client.post(f"/classifiers/{made}/predict", json={"images": [images[i]]})
            answers[i] = answer.json()["predictions"][0]["label"]

        clients = [threading.Thread(target=ask, args=(i,)) for i in range(5)]
        clients[0].start()
        assert begun.wait(20)
        for thread in clients[1:]:
            thread.start()
        while sum(len(entry.waiting) for entry in store) < 4:
            time.sleep(0.01)
        go_on.set()
        for thread in clients:
            thread.join()
    assert calls[0] == 1
    assert sum(calls) == 5
    assert len(calls) < 5
    assert [answers[i] for i in range(5)] == [p["label"] for p in expected["predictions"]]


def test_runs_are_described(client: httpx.Client) -> None:
    first, second = client.get("/runs").json()["runs"]
    assert first == {
        "name": "glyphs",
        "learner": "protonet",
        "data": "glyphs",
        "shape": [1, 28, 28],
        "polarity": "light-on-dark",
        "most_classes": None,
        "steps": None,
        "transductive": True,
        "shows": "map",
        "controls": ["scratch"],
    }
    assert (second["most_classes"], second["steps"], second["shows"]) == (5, 2, "steps")


def test_runs_of_one_name_and_of_no_pictures(run: Path, tmp_path: Path) -> None:
    assert [m.name for m in Models([run, run], device="cpu")] == ["glyphs", "glyphs-2"]
    with pytest.raises(UserError, match="no run is named"):
        Models([])
    with pytest.raises(UserError, match="is not a run folder"):
        Models([tmp_path])


def test_metrics_count_by_route(client: httpx.Client, made: str) -> None:
    client.get(f"/classifiers/{made}")
    client.get(str(client.base_url) + "nothing/<script>")
    text = client.get("/metrics").text
    assert f'path="{API}/classifiers/{{id}}",status="200"}} 1' in text
    assert f'{{method="POST",path="{API}/classifiers",status="201"}} 1' in text
    assert 'method="ANY",path="other",status="404"} 1' in text
    assert made not in text
    assert "script" not in text
    assert "quickstudy_classifiers 1" in text


def test_the_example_of_the_page_runs(run: Path, drawings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    files = sorted(drawings.rglob("*.png"))
    names = [f.parent.name for f in files]
    with serving([run]) as client:
        code = code.replace("http://127.0.0.1:8000/api/v1/", str(client.base_url))
        code = code.replace("http://127.0.0.1:8000/api/v1", str(client.base_url)).replace('"run": "a", ', "")
        said: dict[str, Any] = {"files": files, "names": names, "new_file": files[0]}
        exec(code, said)
        said["api"].close()
    expected = qs.FewShotClassifier.from_run(run).fit(files, names).predict(files[:1])
    assert capsys.readouterr().out.strip() == expected[0]


def other_settings(run: Path, path: Path, **settings: Any) -> Path:
    """A copy of a run whose learner has other options."""
    shutil.copytree(run, path)
    config = json.loads((path / "config.json").read_text())
    config["settings"] |= settings
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_the_steps_of_a_run_are_those_that_it_takes_in_use(maml_run: Path, tmp_path: Path) -> None:
    models = Models([other_settings(maml_run, tmp_path / "longer", test_steps=7)], device="cpu")
    (model,) = models
    assert model.describe()["steps"] == 7
    assert models.classifier(None, 7, False).learner is model.learner
    longer = models.classifier(None, 6, False).learner
    assert isinstance(longer, qs.MAML)
    assert longer.steps_in_use == 6


def test_numbers_beyond_bounds_are_told(maml_run: Path, tmp_path: Path) -> None:
    """A learner that diverges in use answers by a sentence, and neither by NaN nor by a fault."""
    with serving([other_settings(maml_run, tmp_path / "far", inner_lr=1e30)]) as client:
        made = client.post("/classifiers", json={"examples": examples()})
        assert made.status_code == 201
        for what in ("predict", "inside"):
            images = {"images": [sent(drawing(UNSEEN[0], 0))]}
            answer = client.post(f"/classifiers/{made.json()['id']}/{what}", json=images)
            assert answer.status_code == 422
            assert "take fewer inner steps" in answer.json()["error"]

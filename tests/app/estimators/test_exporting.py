"""An exported predictor answers, in another program's runtime, as it does here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import quickstudy as qs
from quickstudy.data.pictures import Pictures
from quickstudy.errors import UserError

RNG = np.random.default_rng(0)
PICTURES = RNG.random((7, 1, 16, 16)).astype(np.float32)
LABELS = np.array(["a", "b", "a", "c", "b", "c", "a"])


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"examples": x})[0]
    assert isinstance(found, np.ndarray)
    return found


def notes(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(str(path)).metadata_props}


def conv(norm: str = "support") -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return qs.nets.conv4(6, size=16, norm=norm)


LEARNERS: dict[str, Callable[[], qs.Learner]] = {
    "protonet": lambda: qs.ProtoNet(conv()),
    "cosine": lambda: qs.ProtoNet(conv("running"), distance="cosine"),
    "simpleshot": lambda: qs.SimpleShot(conv(), classes=5),
    "matching": lambda: qs.MatchingNet(conv("layer")),
    "r2d2": lambda: qs.R2D2(conv("group")),
    "relation": lambda: qs.RelationNet(qs.nets.conv4(6, size=16, halvings=2)),
    "maml": lambda: qs.MAML(conv(), way=3, steps=2),
    "transformer": lambda: qs.InContext(conv("layer")),
}
SLOW = ("cosine", "matching", "relation", "transformer")
"""Much like the others, and seconds each."""


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, make in LEARNERS.items()
    ],
)
def test_it_answers_the_same_for_any_number(make: Callable[[], qs.Learner], tmp_path: Path) -> None:
    classifier = qs.FewShotClassifier(make(), pictures=Pictures((1, 16, 16))).fit(PICTURES, LABELS)
    classifier.export(tmp_path / "a.onnx")
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    for n in (1, 3, 7):
        found = answers(tmp_path / "a.onnx", PICTURES[:n])
        np.testing.assert_allclose(found, classifier.predict_proba(PICTURES[:n]), atol=1e-5)
    assert json.loads(notes(tmp_path / "a.onnx")["classes"]) == ["a", "b", "c"]


def test_pictures_of_the_other_polarity_are_inverted_inside(tmp_path: Path) -> None:
    drawings = qs.data.glyphs(classes=3, samples_per_class=4, size=16)
    light = drawings.x.numpy().astype(np.float32) / 255
    learner = qs.ProtoNet(conv())
    form = Pictures((1, 16, 16), "light-on-dark")
    labels = np.repeat([5, 7, 9], 4)
    expected = qs.FewShotClassifier(learner, pictures=form).fit(light, labels).predict_proba(light)
    dark = qs.FewShotClassifier(learner, pictures=form).fit(1 - light, labels)
    dark.export(tmp_path / "dark.onnx")
    np.testing.assert_allclose(answers(tmp_path / "dark.onnx", 1 - light), expected, atol=1e-5)
    assert json.loads(notes(tmp_path / "dark.onnx")["classes"]) == [5, 7, 9]


def test_a_regression(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    for learner, said in (
        (qs.MAML(qs.nets.mlp(1, (8,)), way=1), "values"),
        (qs.CNP(qs.nets.mlp(1, (8,)), way=1), "mean_and_log_std"),
    ):
        found = qs.FewShotRegressor(learner).fit(x, x[:, 0] ** 2)
        found.export(tmp_path / said)
        model = onnx.load(str(tmp_path / said))
        assert [out.name for out in model.graph.output] == [said]
        values = answers(tmp_path / said, x)
        expected = found.predict(x, return_std=True) if said != "values" else (found.predict(x),)
        np.testing.assert_allclose(values[:, 0], expected[0], atol=1e-5)
        if said != "values":
            np.testing.assert_allclose(np.exp(values[:, 1]), expected[1], atol=1e-5)


def test_what_cannot_be_exported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = qs.FewShotClassifier(qs.ProtoNet(conv("batch")), pictures=Pictures((1, 16, 16)))
    with pytest.raises(UserError, match="depends on the other queries"):
        batch.fit(PICTURES, LABELS).export(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'quickstudy\[export\]'"):
        batch.set_params(learner=qs.ProtoNet(conv())).fit(PICTURES, LABELS).export(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_the_command_exports_a_predictor_and_an_embedding(
    run: Path, drawings: Path, tmp_path: Path, command: Callable[..., Any], refused: Callable[..., str]
) -> None:
    said = command("export", run, "--support", drawings, "--out", tmp_path / "p.onnx")
    assert said.code == 0, said.err
    assert "p.onnx: predictor of 5 classes for pictures 1×28×28" in said.err
    files = sorted(drawings.rglob("*.png"))
    x = np.stack([np.asarray(Image.open(f).convert("L")) for f in files])[:, None] / np.float32(255)
    classifier = qs.FewShotClassifier.from_run(run).fit(files, [f.parent.name for f in files])
    np.testing.assert_allclose(answers(tmp_path / "p.onnx", x), classifier.predict_proba(files), atol=1e-5)
    assert json.loads(notes(tmp_path / "p.onnx")["classes"]) == classifier.classes_.tolist()
    assert "exists already" in refused("export", run, "--out", tmp_path / "p.onnx")

    said = command("export", run, "--out", tmp_path / "e.onnx")
    assert "embedding of pictures 1×28×28, normalised by running averages" in said.err
    learner, _, _ = qs.load_run(run)
    learner.eval()
    with torch.no_grad():
        expected = learner.body(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(answers(tmp_path / "e.onnx", x), expected, atol=1e-5)
    assert "is not a run folder" in refused("export", tmp_path, "--out", tmp_path / "x")


def test_a_learner_without_an_embedding_is_told(tmp_path: Path) -> None:
    from quickstudy.app.estimators.exporting import export_embedding

    with pytest.raises(UserError, match="MAML has no embedding of its own: give a support set"):
        export_embedding(qs.MAML(conv(), way=3), (1, 16, 16), tmp_path / "a", None)
    with pytest.raises(UserError, match="normalises by a support set: give one"):
        export_embedding(qs.ProtoNet(conv()), (1, 16, 16), tmp_path / "a", None)

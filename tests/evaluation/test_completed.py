"""Completed pictures: the pixels lie where they belong, and the file is there to look at."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

import quickstudy as qs
from quickstudy.evaluation.completed import completed, completion_picture


def test_every_pixel_lies_where_it_belongs() -> None:
    data = qs.data.glyphs(classes=2, samples_per_class=3, size=12)
    source = qs.Completion(data, shot=20, seed=3)
    learner = qs.CNP(qs.nets.mlp(2, (8,)), way=1)
    found, task = completed(learner, source, 1), source.task(1)
    assert {v.shape for v in found.values()} == {(1, 12, 12)}
    assert int((~found["shown"].isnan()).sum()) == 20
    mean, std = learner.adapt(task.support).gaussian(task.query.x)
    for (row, column), y, m, s in zip(task.query.x, task.query.y, mean, std, strict=True):
        i, j = (round(float(11 * (place + 1) / 2)) for place in (row, column))
        assert found["it was"][0, i, j] == y[0]
        assert found["mean"][0, i, j] == m[0]
        assert found["deviation"][0, i, j] == s[0]
    pictures = data.x[:, 0].float() / 255
    assert any(torch.allclose(picture, found["it was"][0]) for picture in pictures)
    shown = ~found["shown"].isnan()
    assert torch.equal(found["shown"][shown], found["it was"][shown])


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    data = qs.data.glyphs(classes=2, samples_per_class=3, size=12)
    learner = qs.CNP(qs.nets.mlp(2, (8,)), way=1)
    sources = {shot: qs.Completion(data, shot=shot) for shot in (5, 20)}
    completion_picture(learner, sources, tmp_path / "a.png", pictures=2)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > picture.height

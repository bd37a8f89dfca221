"""People's own strokes from Quick, Draw!, drawn in the studio: how many does it tell apart?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

import quickstudy as qs
from quickstudy.data.strokes import read_strokes

from ..server.drawn import serving
from .conftest import drawn, opened, settled

SHOTS, QUERIES = 3, 10


@pytest.mark.slow
@pytest.mark.real_data
def test_strokes_of_classes_that_nobody_has_seen(real_data: Path, browser: Browser, tmp_path: Path) -> None:
    """Five meta-test categories, three examples each, ten queries of each: the number is printed."""
    config = qs.TrainConfig(
        data="quickdraw",
        data_dir=real_data,
        samples_per_class=20,
        learner="protonet",
        channels=32,
        norm="running",
        augment="drawing",
        schedule="cosine",
        iterations=1000,
        validate_every=250,
        validation_tasks=50,
        threads=1,
    )
    qs.train(config, tmp_path / "quickdraw")
    names = config.splits().test.names[:5]
    every = [read_strokes(real_data / "quickdraw" / "simplified" / f"{name}.ndjson") for name in names]
    lines = [[[stroke / 255 for stroke in one.strokes] for one in drawings] for drawings in every]
    found = []
    with serving([tmp_path / "quickdraw"]) as client, opened(browser, client) as page:
        page.click("#add-class")
        page.click("#add-class")
        for k in range(5):
            for i in range(SHOTS):
                if i:
                    page.locator(".card .keep").nth(k).click()
                drawn(page, ".card canvas", lines[k][i], k, every=1)
        for k in range(5):
            for i in range(SHOTS, SHOTS + QUERIES):
                page.click("#pad-clear")
                drawn(page, "#pad", lines[k][i], every=1)
                settled(page)
                found.append(page.inner_text("#bars .best .label") == f"Class {k + 1}")
    print(f"{sum(found)} of {len(found)} drawings of {', '.join(names)} right")
    assert np.mean(found) >= 0.5  # chance is 0.2

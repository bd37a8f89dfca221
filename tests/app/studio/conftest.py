"""The studio in a real browser: Chromium, as Debian packages it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import quickstudy as qs

from ..server.drawn import serving

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


def trained(path: Path, iterations: int) -> Path:
    """Prototypical networks that know what drawings are: meta-trained on Glyphs."""
    config = qs.TrainConfig(
        data="glyphs",
        learner="protonet",
        channels=32,
        norm="running",
        augment="affine",
        schedule="cosine",
        iterations=iterations,
        validation_tasks=20,
        validate_every=iterations,
        threads=1,
    )
    qs.train(config, path)
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Prototypical networks of half a minute, with a pretrained net beside; MAML of a moment."""
    folder = tmp_path_factory.mktemp("studio")
    run = trained(folder / "glyphs", 400)
    _, config, _ = qs.load_run(run)
    splits = config.splits()
    qs.floors(
        config,
        splits,
        source=config.problem(splits.test),
        names=["pretrain-finetune"],
        n_tasks=2,
        search_tasks=1,
        pretrain_iterations=1,
        cache=run / "floors",
    )
    options: dict[str, Any] = {"learner": "maml", "channels": 8, "iterations": 20, "settings": {"steps": 3}}
    brief = qs.TrainConfig(data="glyphs", validation_tasks=4, threads=1, strategy="loop", **options)
    qs.train(brief, folder / "maml")
    return run, folder / "maml"


@pytest.fixture(scope="session")
def server(runs: tuple[Path, Path]) -> Iterator[httpx.Client]:
    """A server of both."""
    with serving(runs) as client:
        yield client


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server of a run of minutes."""
    with serving([trained(tmp_path_factory.mktemp("studio") / "glyphs", 3000)]) as client:
        yield client


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium here: the studio is not tested (Debian's package chromium has it)")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.fixture
def studio(browser: Browser, server: httpx.Client) -> Iterator[Page]:
    """The page, opened anew."""
    with opened(browser, server) as page:
        yield page


@pytest.fixture
def patient_studio(browser: Browser, patient: httpx.Client) -> Iterator[Page]:
    """The page of the run of minutes."""
    with opened(browser, patient) as page:
        yield page


@contextmanager
def opened(browser: Browser, server: httpx.Client) -> Iterator[Page]:
    """The page; what its console says, an error in it, or a request to elsewhere, fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(str(server.base_url).removesuffix("api/v1/"))
    page.wait_for_selector("body[data-ready]")
    yield page
    page.close()
    assert said == []
    home = str(server.base_url).removesuffix("api/v1/")
    assert all(url.startswith((home, "data:", "blob:")) for url in asked), asked


def settled(page: Page) -> None:
    """Wait until nothing more is asked of the server for the answer."""
    page.wait_for_selector("#bars[aria-busy=false]", state="attached")


def all_settled(page: Page) -> None:
    """The same, also for what is shown below it."""
    for place in ("#bars", "#figure", "#controls"):
        page.wait_for_selector(f"{place}[aria-busy=false]", state="attached")


def drawn(page: Page, selector: str, lines: Any, which: int = 0, *, every: int = 4) -> None:
    """Draw strokes `[n, 2]`, in shares of the sheet, by the mouse: a browser is told of each point by itself,
    so that of close ones only some are shown."""
    canvas = page.locator(selector).nth(which)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    for line in lines:
        points = [(float(box["x"] + x * box["width"]), float(box["y"] + y * box["height"])) for x, y in line]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in [*points[every:-1:every], points[-1]]:
            page.mouse.move(*point)
        page.mouse.up()

"""What the studio shows beside its answers is what the server tells; tasks, sessions and files go round."""

from __future__ import annotations

import itertools
import json
import re
import time
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

import quickstudy as qs
from quickstudy.app.server.pages import pages
from quickstudy.data.glyphs import strokes

from .conftest import all_settled, drawn, settled
from .test_studio import UNSEEN


def three(page: Page, shots: int = 2) -> None:
    """Three classes, and a test drawing of the second."""
    for k, c in enumerate(UNSEEN[:3]):
        for i in range(shots):
            if i:
                page.locator(".card .keep").nth(k).click()
            drawn(page, ".card canvas", strokes(c, i), k)
    drawn(page, "#pad", strokes(UNSEEN[1], 5))
    all_settled(page)


def bars(place: Locator | Page, selector: str = "#bars") -> dict[str, str]:
    """What bars say, by class."""
    found: dict[str, str] = place.locator(selector).evaluate(
        """list => Object.fromEntries([...list.children].map(
        item => [item.querySelector('.label').textContent, item.querySelector('.value').textContent]))"""
    )
    return found


def test_the_map_has_examples_means_and_the_drawing(studio: Page) -> None:
    three(studio)
    assert studio.locator("#figure svg").get_attribute("aria-label") == "A map of 6 examples of 3 classes"
    for selector, count in (("circle:not(.drawing)", 6), (".mean", 3), ("circle.drawing", 1), (".reach", 3)):
        assert studio.locator(f"#figure {selector}").count() == count
    place = studio.locator("#figure circle.drawing")
    before = place.get_attribute("cx"), place.get_attribute("cy")
    studio.click("#pad-clear")
    drawn(studio, "#pad", strokes(UNSEEN[2], 5))
    all_settled(studio)
    assert (place.get_attribute("cx"), place.get_attribute("cy")) != before


def test_names_on_the_map_keep_out_of_each_other_s_way(studio: Page) -> None:
    three(studio, shots=1)
    for words in ("a" * 14, "b" * 14, "c" * 14):
        studio.locator(".card .name input").nth(ord(words[0]) - ord("a")).fill(words)
    all_settled(studio)
    boxes = studio.locator("#figure .name").evaluate_all(
        "all => all.map(name => name.getBBox()).map(b => [b.x, b.y, b.width, b.height])"
    )
    assert len(boxes) == 4
    for (x, y, w, h), (left, top, wide, high) in itertools.combinations(boxes, 2):
        assert x + w <= left or left + wide <= x or y + h <= top or top + high <= y
    view = [float(v) for v in (studio.locator("#figure svg").get_attribute("viewBox") or "").split()]
    assert all(x >= 0 and x + w <= view[2] for x, _, w, _ in boxes)


def test_the_course_ends_in_the_answer(studio: Page) -> None:
    """Of a learner that takes steps: three charts, and the last point of each class is its bar."""
    studio.select_option("#run", "maml")
    three(studio)
    assert studio.locator("#figure svg").count() == 3
    told = bars(studio)
    ends: dict[str, float] = (
        studio.locator("#figure svg")
        .nth(2)
        .evaluate(
            """svg => { const y = line => Number(line.getAttribute('y1'));
        const [zero, , one] = [...svg.querySelectorAll('.grid')].map(y);
        const names = [...svg.querySelectorAll('line:not(.grid)')].map(
          line => [line.getAttribute('stroke'), line.nextElementSibling.textContent]);
        return Object.fromEntries([...svg.querySelectorAll('polyline')].map(line => [
          names.find(([colour]) => colour === line.getAttribute('stroke'))[1],
          (zero - Number(line.getAttribute('points').split(/[ ,]/).at(-1))) / (zero - one)])); }"""
        )
    )
    assert {name: round(100 * p) for name, p in ends.items()} == pytest.approx(
        {name: int(value.removesuffix(" %")) for name, value in told.items()}, abs=1
    )
    studio.fill("#steps", "6")
    studio.press("#steps", "Enter")
    all_settled(studio)
    points = studio.locator("#figure polyline").first.get_attribute("points")
    assert points is not None
    assert len(points.split()) == 7


def test_a_learner_of_fewer_classes_takes_no_drawing_away(studio: Page) -> None:
    three(studio, shots=1)
    for k, c in enumerate((8, 9, 10), 3):
        studio.click("#add-class")
        drawn(studio, ".card canvas", strokes(c, 0), k)
    all_settled(studio)
    assert len(bars(studio)) == 6
    mine = bars(studio)
    studio.select_option("#run", "maml")
    all_settled(studio)
    expect(studio.locator("#verdict")).to_have_text(
        "This learner tells 5 classes apart at most: delete 1, or choose another learner."
    )
    assert studio.locator(".card").count() == 6
    assert bars(studio) == {}
    studio.select_option("#run", "glyphs")
    all_settled(studio)
    assert bars(studio) == mine
    studio.click("#add-class")  # an empty card may go
    studio.select_option("#run", "maml")
    all_settled(studio)
    assert studio.locator(".card").count() == 6


def test_a_card_without_examples_has_no_line(studio: Page) -> None:
    studio.select_option("#run", "maml")
    for k in range(2):
        drawn(studio, ".card canvas", strokes(UNSEEN[k], 0), k)
    drawn(studio, "#pad", strokes(UNSEEN[1], 5))
    all_settled(studio)
    assert studio.locator(".card").count() == 3
    assert studio.locator("#figure svg").nth(2).locator("polyline").count() == 2


def test_cards_of_one_name_are_one_class_of_the_first_card_s_colour(studio: Page) -> None:
    three(studio, 1)
    studio.locator(".name input").nth(1).fill("Class 1")
    all_settled(studio)
    dots = studio.locator(".dot").evaluate_all("all => all.map(dot => getComputedStyle(dot).backgroundColor)")
    fills = studio.locator("#bars .fill")
    assert fills.evaluate_all("all => all.map(f => getComputedStyle(f).backgroundColor)") == dots[::2]
    assert list(bars(studio)) == ["Class 1", "Class 3"]
    means = studio.locator("#figure .mean").evaluate_all("all => all.map(m => getComputedStyle(m).fill)")
    assert means == dots[::2]


@pytest.mark.parametrize(("asked", "taken"), [("-3", "0"), ("1.6", "2"), ("999", "200"), ("", "3")])
def test_steps_are_brought_to_what_there_can_be(studio: Page, asked: str, taken: str) -> None:
    studio.select_option("#run", "maml")
    studio.fill("#steps", asked)
    studio.press("#steps", "Enter")
    assert studio.input_value("#steps") == taken


def test_what_is_told_late_is_drawn_by_the_classes_it_was_asked_of(studio: Page) -> None:
    """The cards change while the course of the old ones is under way."""
    studio.select_option("#run", "maml")
    three(studio)
    studio.route("**/inside", lambda route: (time.sleep(0.3), route.continue_()))
    drawn(studio, "#pad", strokes(UNSEEN[0], 5))
    studio.wait_for_selector("#figure[aria-busy=true]")
    studio.locator(".name input").first.fill("renamed")
    all_settled(studio)  # a line that is no number is an error on the console, which fails every test
    assert "renamed" in bars(studio)
    expect(studio.locator("#figure svg").nth(2).get_by_text("renamed")).to_be_visible()


def test_networks_that_were_not_meta_trained_stand_beside(studio: Page) -> None:
    three(studio)
    names = ["Trained from scratch", "Pretrained, fine-tuned"]
    assert studio.locator("#controls h3").all_inner_texts() == names
    for k in range(2):
        control = studio.locator(".control").nth(k)
        told = {name: int(value.removesuffix(" %")) for name, value in bars(control, ".bars").items()}
        assert list(told) == ["Class 1", "Class 2", "Class 3"]
        assert sum(told.values()) == pytest.approx(100, abs=2)
        best = max(told, key=lambda name: told[name])
        assert control.locator(".said").inner_text().startswith(f"{best}: {told[best]} %, learned in ")
    studio.uncheck("#compare")
    all_settled(studio)
    expect(studio.locator(".control")).to_have_count(0)
    studio.select_option("#run", "maml")
    expect(studio.locator("#missing")).to_contain_text("quickstudy evaluate RUN --floors")


def test_a_random_task_is_scored_and_its_answers_are_held_back(studio: Page) -> None:
    three(studio)
    mine = bars(studio)
    sent: list[str] = []
    studio.on("request", lambda request: sent.append(request.post_data or ""))
    studio.fill("#way", "4")
    held: list[Route] = []
    studio.route("**/tasks", lambda route: held.append(route))
    studio.click("#random")
    expect(studio.locator("#fetching")).to_have_text("Finding a task…")
    studio.click("#random")  # nothing: one is being found
    (request,) = held
    request.continue_()
    studio.unroute("**/tasks")
    expect(studio.locator("#score")).to_have_text(re.compile(r"^\d+ of 20 right$"))
    expect(studio.locator("#fetching")).to_be_empty()
    all_settled(studio)
    rings = studio.locator("#figure .query").evaluate_all(
        "all => all.map(ring => ring.getAttribute('stroke'))"
    )
    assert sorted(map(rings.count, set(rings))) == [5] * 4  # five of each class, in its colour
    expect(studio.locator(".card")).to_have_count(4)
    names = [card.input_value() for card in studio.locator(".name input").all()]
    right = studio.locator("#queries .right").count()
    assert right + studio.locator("#queries .wrong").count() == 20
    assert studio.inner_text("#score") == f"{right} of 20 right"
    asked = [json.loads(body) for body in sent if '"images"' in body]
    assert asked
    assert all(set(body) == {"images"} for body in asked)  # nothing but pictures: the labels stay here
    for k in range(2):
        words = studio.locator(".control .score").nth(k).inner_text()
        assert words.endswith(f" of 20 right; meta-learned {right}")
    wrong = studio.locator("#queries .wrong, #queries .right").first
    told = wrong.get_attribute("aria-label")
    assert told is not None
    assert told.split("taken for ")[1].split(",")[0] in names
    studio.locator("#queries button").first.click()
    all_settled(studio)
    best = studio.inner_text("#bars .best .label")
    assert f"taken for {best}," in (studio.locator("#queries button").first.get_attribute("aria-label") or "")
    studio.click("#back")
    all_settled(studio)
    assert bars(studio) == mine
    expect(studio.locator("#task")).to_be_hidden()
    studio.fill("#way", "50")
    studio.click("#random")
    expect(studio.locator("#problem")).to_have_text("A task may have 2 to 20 classes here.")


def test_a_session_is_saved_and_opened(studio: Page, tmp_path: Path) -> None:
    studio.locator(".name input").nth(1).fill("<b>second</b>")
    three(studio)
    mine = bars(studio)
    with studio.expect_download() as download:
        studio.click("#save")
    assert download.value.suggested_filename == "quickstudy-session.json"
    download.value.save_as(tmp_path / "session.json")
    studio.reload()
    studio.wait_for_selector("body[data-ready]")
    studio.locator("#open").set_input_files(str(tmp_path / "session.json"))
    expect(studio.locator("#bars .best")).to_have_count(1)
    all_settled(studio)
    assert bars(studio) == mine
    assert list(mine)[1] == "<b>second</b>"
    studio.locator(".card").nth(1).get_by_role("button", name="Undo").click()  # strokes are strokes again
    settled(studio)


@pytest.mark.parametrize(
    "change",
    [
        {"quickstudy": 2},
        {"run": None},
        {"steps": -1},
        {"classes": [{"name": "a", "origin": None, "strokes": [], "examples": ["http://127.0.0.1/x.png"]}]},
        {"classes": [{"name": "a", "origin": None, "strokes": [], "examples": ["javascript:alert(1)"]}]},
        {"classes": [{"name": "a", "origin": None, "strokes": [[["x", 1]]], "examples": []}]},
        {"classes": [{"name": "a", "origin": None, "strokes": [], "examples": []}] * 21},
        {"pad": "all"},
        {"given": "data:image/svg+xml;base64,AAAA"},
        {"queries": [{"label": "a"}]},
        "text",
    ],
)
def test_what_is_no_session_is_refused(studio: Page, tmp_path: Path, change: Any) -> None:
    good = {"quickstudy": 1, "run": "glyphs", "steps": None, "transductive": False, "classes": []}
    good |= {"pad": [], "given": None, "queries": None}
    content = json.dumps({**good, **change} if isinstance(change, dict) else change)
    (tmp_path / "a.json").write_text(content)
    studio.locator("#open").set_input_files(str(tmp_path / "a.json"))
    expect(studio.locator("#problem")).to_have_text("a.json is no session of the studio.")
    expect(studio.locator(".card")).to_have_count(3)  # what was there is there


def test_a_downloaded_classifier_says_what_the_page_says(studio: Page, tmp_path: Path) -> None:
    for k in range(2):
        picture = np.full((40, 40), 255, np.uint8)
        picture[5 + 15 * k : 15 + 15 * k, 5:35] = 0
        Image.fromarray(picture).save(tmp_path / f"{k}.png")
        studio.locator(".card input[type=file]").nth(k).set_input_files(str(tmp_path / f"{k}.png"))
    studio.locator("#pad-file").set_input_files(str(tmp_path / "1.png"))
    expect(studio.locator("#bars .best")).to_have_count(1)
    settled(studio)
    with studio.expect_download() as download:
        studio.click("#download")
    download.value.save_as(tmp_path / "a.safetensors")
    p = qs.FewShotClassifier.load(tmp_path / "a.safetensors").predict_proba([tmp_path / "1.png"])[0]
    assert [f"{round(100 * v)} %" for v in p] == list(bars(studio).values())


AXE = (files("axe_playwright_python") / "axe.min.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_anybody_can_use_it(studio: Page, scheme: Literal["light", "dark"]) -> None:
    """Axe finds nothing, on the page as it opens, with all that can be on it, and on a phone."""
    studio.emulate_media(color_scheme=scheme)

    def found() -> list[tuple[str, str]]:
        studio.evaluate(AXE)
        rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
        result = studio.evaluate("options => axe.run(document, options)", rules)
        assert len(result["passes"]) > 15
        return [(one["id"], node["html"][:200]) for one in result["violations"] for node in one["nodes"]]

    assert found() == []
    three(studio)
    assert found() == []
    studio.select_option("#run", "maml")
    studio.click("#random")
    expect(studio.locator("#score")).not_to_be_empty()
    all_settled(studio)
    studio.set_viewport_size({"width": 390, "height": 844})
    assert found() == []


def test_the_page_is_small(server: httpx.Client) -> None:
    """All of it, as it goes over the line."""
    home = str(server.base_url).removesuffix("api/v1/")
    assert sum(len(httpx.get(home + path.lstrip("/")).content) for path in pages()) < 200_000

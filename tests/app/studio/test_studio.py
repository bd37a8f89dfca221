"""Whoever draws in the studio is answered while drawing: by mouse, by files, on a phone, in the dark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from quickstudy.data.glyphs import strokes

from .conftest import drawn, settled

UNSEEN = range(3000, 3600, 120)
"""Classes of Glyphs beyond the 3,000 of the data set, no two of a family."""


def verdict(page: Page) -> str:
    """The class that the test drawing is taken for, when it has been answered."""
    page.wait_for_function("() => document.querySelector('#bars .best') !== null")
    return page.inner_text("#bars .best .label")


def asked(page: Page, lines: object) -> str:
    """What a new test drawing is taken for, when all of it is drawn."""
    page.click("#pad-clear")
    drawn(page, "#pad", lines)
    settled(page)
    return verdict(page)


def taught(page: Page, shots: int) -> None:
    """Five classes on five cards, drawn along their own strokes."""
    page.click("#add-class")
    page.click("#add-class")
    for k, c in enumerate(UNSEEN):
        page.locator(".card .name input").nth(k).fill(f"sign {c}")
        for i in range(shots):
            if i:
                page.locator(".card .keep").nth(k).click()
            drawn(page, ".card canvas", strokes(c, i), k)
    settled(page)


def right(page: Page, queries: int) -> float:
    """The share of drawings of unseen classes that are told apart, three examples of each being drawn."""
    taught(page, shots=3)
    assert page.locator(".examples img").count() == 10
    found = [asked(page, strokes(c, i)) == f"sign {c}" for i in range(3, 3 + queries) for c in UNSEEN]
    print(f"{sum(found)} of {len(found)} drawings right")
    return float(np.mean(found))


def test_classes_that_nobody_has_seen_are_told_apart(studio: Page) -> None:
    """By a net of half a minute: chance is a fifth."""
    assert right(studio, queries=4) >= 0.5


@pytest.mark.slow
def test_classes_that_nobody_has_seen_are_told_apart_well(patient_studio: Page) -> None:
    assert right(patient_studio, queries=12) >= 0.9


def test_it_is_answered_while_it_is_drawn(studio: Page) -> None:
    for k, c in enumerate(UNSEEN[:3]):
        drawn(studio, ".card canvas", strokes(c, 0), k)
    box = studio.locator("#pad").bounding_box()
    assert box is not None
    studio.mouse.move(box["x"] + 50, box["y"] + 50)
    studio.mouse.down()
    studio.mouse.move(box["x"] + 150, box["y"] + 90)
    expect(studio.locator("#bars .best")).to_have_count(1)  # the pen is still down
    studio.mouse.up()
    told = re.compile(r"^Class \d: \d+ %, (sure|fairly sure|unsure|guessing)$")
    expect(studio.locator("#verdict")).to_have_text(told)


def test_a_card_grows_and_shrinks(studio: Page) -> None:
    card = studio.locator(".card").first
    drawn(studio, ".card canvas", strokes(UNSEEN[0], 0))
    card.get_by_role("button", name="Next example").click()
    drawn(studio, ".card canvas", strokes(UNSEEN[0], 1))
    count = len(strokes(UNSEEN[0], 1))
    for _ in range(count):
        card.get_by_role("button", name="Undo").click()
    expect(card.locator(".examples img")).to_have_count(1)
    card.get_by_role("button", name="Delete example 1").click()
    expect(card.locator(".examples img")).to_have_count(0)
    expect(studio.locator("#verdict")).to_contain_text("Show examples of two classes")
    studio.get_by_role("button", name="Delete this class").first.click()
    expect(studio.locator(".card")).to_have_count(2)
    expect(studio.get_by_role("button", name="Delete this class").first).to_be_disabled()
    for n in range(3, 21):
        studio.get_by_role("button", name="Add a class").click()
        expect(studio.locator(".card")).to_have_count(n)
    expect(studio.locator("#add-class")).to_be_disabled()


def pictures(folder: Path) -> list[Path]:
    """A photograph-like picture of each of three classes, and one that is none."""
    files = []
    for k in range(3):
        page = np.full((120, 90), 240, np.uint8)
        page[20 + 30 * k : 30 + 30 * k, 10:80] = 20
        files.append(folder / f"{k}.png")
        Image.fromarray(page).convert("RGB").save(files[-1])
    (folder / "none.png").write_text("<script>alert(1)</script>")
    return [*files, folder / "none.png"]


def test_files_are_chosen_and_dropped(studio: Page, tmp_path: Path) -> None:
    *files, none = pictures(tmp_path)
    for k, file in enumerate(files[:2]):
        studio.locator(".card input[type=file]").nth(k).set_input_files(str(file))
    data = studio.evaluate_handle(
        """async (bytes) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'c.png', { type: 'image/png' })); return data; }""",
        list(files[2].read_bytes()),
    )
    studio.locator(".card").nth(2).dispatch_event("drop", {"dataTransfer": data})
    expect(studio.locator(".examples img")).to_have_count(3)
    studio.locator("#pad-file").set_input_files(str(files[2]))
    assert verdict(studio) == "Class 3"
    studio.locator("#pad-file").set_input_files(str(none))
    expect(studio.locator("#problem")).to_have_text("none.png is no picture that this browser can read.")


def test_photographs_are_sent_small(studio: Page, tmp_path: Path) -> None:
    """Ten of a phone's are half a megabyte together, where they were a server's whole limit."""
    noise = np.random.default_rng(0).integers(0, 256, (10, 600, 800, 3), np.uint8)
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).resize((1600, 1200)).save(tmp_path / f"{i}.jpg", quality=90)
    files = [str(tmp_path / f"{i}.jpg") for i in range(10)]
    sent: list[int] = []
    studio.on("request", lambda request: sent.append(len(request.post_data or "")))
    for k in range(2):
        studio.locator(".card input[type=file]").nth(k).set_input_files(files[5 * k : 5 * k + 5])
    expect(studio.locator(".examples img")).to_have_count(10)
    expect(studio.locator("#bars li")).to_have_count(2)
    settled(studio)
    assert 10_000 < max(sent) < 1_000_000
    expect(studio.locator("#problem")).to_be_hidden()


def test_a_file_that_is_no_picture_does_not_hold_up_others(studio: Page, tmp_path: Path) -> None:
    *files, none = map(str, pictures(tmp_path))
    studio.locator(".card input[type=file]").nth(0).set_input_files(files[0])
    studio.locator(".card input[type=file]").nth(1).set_input_files([files[1], none, files[2]])
    expect(studio.locator("#problem")).to_contain_text("none.png is no picture")
    expect(studio.locator("#bars li")).to_have_count(2)  # the one before it is learned


def test_a_picture_on_the_test_pad_stays_for_another_learner(studio: Page, tmp_path: Path) -> None:
    files = list(map(str, pictures(tmp_path)))
    for k in range(2):
        studio.locator(".card input[type=file]").nth(k).set_input_files(files[k])
    studio.locator("#pad-file").set_input_files(files[1])
    settled(studio)
    seen = "c => c.toDataURL()"
    before = studio.locator("#pad").evaluate(seen)
    studio.select_option("#run", "maml")
    settled(studio)
    expect(studio.locator("#bars .best")).to_have_count(1)
    assert studio.locator("#pad").evaluate(seen) == before
    studio.click("#pad-clear")
    expect(studio.locator("#verdict")).to_be_empty()
    assert studio.locator("#pad").evaluate(seen) != before


def test_names_are_text(studio: Page) -> None:
    name = "<img src=x onerror=alert(1)>"
    studio.locator(".card .name input").first.fill(name)
    studio.locator(".card .name input").nth(2).fill(
        "constructor"
    )  # which every object has, this card no example
    for k, c in enumerate(UNSEEN[:2]):
        drawn(studio, ".card canvas", strokes(c, 0), k)
    drawn(studio, "#pad", strokes(UNSEEN[0], 1))
    expect(studio.locator("#bars .label").first).to_have_text(name)
    assert studio.locator("#bars img").count() == 0
    expect(studio.locator("#bars li")).to_have_count(2)


def test_it_is_drawn_with_the_keyboard(studio: Page) -> None:
    """A stroke across by arrow keys is the stroke across of the mouse, whatever key was pressed besides."""
    half = [[0.5, 0.5], [0.9, 0.5]]
    drawn(studio, ".card canvas", [np.linspace(*half, 21)])
    drawn(studio, ".card canvas", [np.linspace([0.5, 0.5], [0.5, 0.9], 21)], 1)
    pad = studio.locator("#pad")
    pad.focus()
    for key in ("Space", *["Shift+ArrowRight"] * 3, *["ArrowRight"] * 5, "Space", "ArrowUp"):
        pad.press(key)
    expect(studio.locator("#verdict")).to_contain_text("Class 1")
    blue = """c => { const seen = document.createElement('canvas').getContext('2d');
        seen.drawImage(c, 0, 0, 300, 150); return seen.getImageData(0, 0, 300, 150).data.includes(200); }"""
    assert pad.evaluate(blue)  # where the pen is, which is no part of the drawing
    settled(studio)
    by_keys = bars_of(studio)
    pad.press("Backspace")
    expect(studio.locator("#verdict")).to_be_empty()
    pad.press("Tab")
    assert not pad.evaluate(blue)
    drawn(studio, "#pad", [np.linspace(*half, 21)])
    settled(studio)
    np.testing.assert_allclose(by_keys, bars_of(studio), atol=2)


def bars_of(page: Page) -> list[float]:
    """Percents, by card."""
    return [float(text.split()[0].strip("<>")) for text in page.locator("#bars .value").all_inner_texts()]


def test_what_was_deleted_can_be_had_again(studio: Page) -> None:
    for k, c in enumerate(UNSEEN[:3]):
        drawn(studio, ".card canvas", strokes(c, 0), k)
    studio.locator(".card .keep").nth(1).click()
    drawn(studio, "#pad", strokes(UNSEEN[1], 1))
    settled(studio)
    before, undo = bars_of(studio), studio.get_by_role("button", name="Undo").last
    studio.get_by_role("button", name="Delete this class").nth(1).click()
    expect(studio.locator("#undone")).to_contain_text("“Class 2” deleted.")
    expect(studio.locator("#bars li")).to_have_count(2)
    undo.click()
    expect(studio.locator("#undone")).to_be_empty()
    names = studio.locator(".card .name input").evaluate_all("all => all.map(input => input.value)")
    assert names == ["Class 1", "Class 2", "Class 3"]
    studio.get_by_role("button", name="Delete example 1").click()
    expect(studio.locator(".examples img")).to_have_count(0)
    undo.click()
    expect(studio.locator(".examples img")).to_have_count(1)
    studio.get_by_role("button", name="Clear").first.click()
    expect(studio.locator("#bars li")).to_have_count(2)
    studio.locator(".card .undo").first.click()  # of a cleared sheet, what was on it
    expect(studio.locator("#bars li")).to_have_count(3)
    studio.get_by_role("button", name="Start anew").click()
    expect(studio.locator("#verdict")).to_contain_text("Show examples of two classes")
    expect(studio.locator(".card")).to_have_count(3)
    undo.click()
    expect(studio.locator("#bars .best")).to_have_count(1)
    settled(studio)
    assert bars_of(studio) == before


def test_a_page_that_is_loaded_again_has_what_was_drawn(studio: Page) -> None:
    for k, c in enumerate(UNSEEN[:3]):
        drawn(studio, ".card canvas", strokes(c, 0), k)
    studio.locator(".card .keep").first.click()
    studio.locator(".card .name input").first.fill("mine")
    drawn(studio, "#pad", strokes(UNSEEN[1], 1))
    settled(studio)
    before = bars_of(studio)
    studio.reload()
    expect(studio.locator("#bars .best")).to_have_count(1)
    settled(studio)
    assert bars_of(studio) == before
    assert studio.locator(".card .name input").first.input_value() == "mine"
    studio.get_by_role("button", name="Start anew").click()
    studio.reload()
    expect(studio.locator("#verdict")).to_contain_text("Show examples of two classes")
    studio.evaluate("sessionStorage.setItem('quickstudy-session', '{\"quickstudy\": 1}')")
    studio.evaluate("addEventListener('pagehide', event => event.stopImmediatePropagation(), true)")
    studio.reload()
    expect(studio.locator(".card")).to_have_count(3)


def test_cards_of_one_name_say_so(studio: Page) -> None:
    expect(studio.locator(".twin:visible")).to_have_count(0)
    studio.locator(".card .name input").nth(2).fill("Class 1")
    expect(studio.locator(".twin:visible")).to_have_count(2)
    studio.get_by_role("button", name="Delete this class").first.click()
    expect(studio.locator(".twin:visible")).to_have_count(0)


def contrast(page: Page, selector: str) -> float:
    """WCAG's contrast of an element's text with what is behind it."""
    found: float = page.eval_on_selector(
        selector,
        """element => {
          const parse = text => text.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => {
            const [x, y, z] = [r, g, b].map(v => v / 255)
              .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * x + 0.7152 * y + 0.0722 * z;
          };
          let behind = element;
          while (parse(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
          const text = light(parse(getComputedStyle(element).color));
          const ground = light(parse(getComputedStyle(behind).backgroundColor));
          return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        }""",
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(studio: Page, scheme: Literal["light", "dark"]) -> None:
    """WCAG AA: 4.5 to 1."""
    studio.emulate_media(color_scheme=scheme)
    for k, c in enumerate(UNSEEN[:2]):
        drawn(studio, ".card canvas", strokes(c, 0), k)
    drawn(studio, "#pad", strokes(UNSEEN[0], 1))
    verdict(studio)
    for selector in ("h1", "h2", ".hint", "#about", ".keep", ".undo", ".name input", "#verdict", "footer p"):
        assert contrast(studio, selector) >= 4.5, selector
    for selector in (".options label", "#bars .label", "#bars .value", "#add-class"):
        assert contrast(studio, selector) >= 4.5, selector


def test_everything_has_a_name_and_can_be_reached(studio: Page) -> None:
    for element in studio.locator("button, input, select, canvas").all():
        name = element.evaluate(
            """e => e.getAttribute('aria-label') || e.textContent.trim()
            || e.labels?.[0]?.textContent.trim()"""
        )
        assert name, element.evaluate("e => e.outerHTML")
    seen = set()
    for _ in range(40):
        studio.keyboard.press("Tab")
        seen.add(studio.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
    for selector in ("#run", ".keep", "#add-class", "#pad-clear", "#pad-file"):
        html = studio.eval_on_selector(selector, "e => e.outerHTML.slice(0, 60)")
        assert html in seen, selector


def test_it_fits_a_phone(browser: Browser, server: object, studio: Page) -> None:
    phone = browser.new_context(viewport={"width": 375, "height": 700}, has_touch=True, device_scale_factor=2)
    page = phone.new_page()
    page.goto(studio.url)
    page.wait_for_selector("body[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    for k, c in enumerate(UNSEEN[:2]):
        drawn(page, ".card canvas", strokes(c, 0), k)
    drawn(page, "#pad", strokes(UNSEEN[0], 0))
    assert verdict(page) == "Class 1"
    phone.close()

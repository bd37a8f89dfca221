"""The site is built without a warning, from nothing but this repository, and has all public names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import quickstudy as qs

from .pages import PAGES, ROOT

ROOMS = {"": qs, ".data": qs.data, ".nets": qs.nets, ".inner": qs.inner, ".evaluation": qs.evaluation}


def built(out: Path) -> Path:
    """The site, as `make docs` builds it; a link that leads nowhere, or a bad docstring, ends it."""
    (line,) = re.findall(r"-m (sphinx .*) docs build/docs$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = line.replace("build/doctrees", str(out / "trees")).split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", *words, "docs", str(out / "html")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


def every_page_is_in_it_and_in_its_menu(site: Path) -> None:
    index = (site / "index.html").read_text()
    for page in PAGES:
        name = page.replace(".md", ".html")
        assert (site / name).is_file()
        if "/" not in page and name != "index.html":
            assert f'href="{name}"' in index, name


def nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]*\shref="([^"]+)"', text)
        assert loaded
        assert not [address for address in loaded if "//" in address], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", sheet.read_text()), sheet


def documented(site: Path) -> set[str]:
    """The names of Python objects in the site's inventory."""
    raw = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(raw.split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ")[0] for line in lines if " py:" in line}


def every_public_name_is_in_the_reference(site: Path) -> None:
    """By one of its public names."""
    found = documented(site)
    anywhere = {name.rpartition(".")[2] for name in found}
    for room, module in ROOMS.items():
        for name in module.__all__:
            thing = getattr(module, name)
            if name == "__version__" or type(thing).__name__ == "module":
                continue
            assert f"quickstudy{room}.{name}" in found or name in anywhere, f"{room}.{name}"
    assert {"quickstudy.MAML", "quickstudy.nets.conv4", "quickstudy.Learner.adapt"} <= found


def test_the_site_is_whole(tmp_path: Path) -> None:
    """In one test, since building takes long."""
    site = built(tmp_path)
    every_page_is_in_it_and_in_its_menu(site)
    nothing_is_fetched_from_elsewhere(site)
    every_public_name_is_in_the_reference(site)

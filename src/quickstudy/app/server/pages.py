"""The studio's files, which are all that the server gives out beside its API."""

from __future__ import annotations

from importlib.resources import files

TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}


def pages() -> dict[str, tuple[bytes, str]]:
    """Each file's content and type, by its address. They are read once: no address leads to any other file.

    >>> sorted(pages())[:3]
    ['/', '/studio/api.js', '/studio/bars.js']
    """
    found = {}
    for file in (files("quickstudy") / "app" / "studio").iterdir():
        kind = TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            address = "/" if file.name == "index.html" else f"/studio/{file.name}"
            found[address] = (file.read_bytes(), kind)
    return found

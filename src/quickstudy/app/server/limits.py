"""What the server takes at most. Nothing that a client sends is trusted to be small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a client may ask for. The API's schema states the usual ones: other ones can only be tighter.

    Args:
        body: bytes of a request.
        seconds: that a request may take to arrive.
        pixels: of a picture, as its header states them, before anything is decoded.
        together: pixels of all pictures in a request.
        images: pictures in a request.
        examples: that a classifier is made of.
        classes: of a classifier.
        label: letters of a class's name.
        classifiers: that are kept; one more takes the place of the one that was not used for longest.
        idle: seconds after which a classifier that nobody used is forgotten.
        steps: of inner learning.
        work: examples times inner steps: what one client may keep a processor busy with.
    """

    body: int = 16_000_000
    seconds: float = 20.0
    pixels: int = 30_000_000
    together: int = 60_000_000
    images: int = 256
    examples: int = 1000
    classes: int = 100
    label: int = 100
    classifiers: int = 200
    idle: float = 3600.0
    steps: int = 200
    work: int = 20_000


LIMITS = Limits()
"""Those of the server, as its schema states them."""

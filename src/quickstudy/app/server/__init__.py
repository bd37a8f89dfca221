"""The server: classifiers that are made of examples, over a JSON API."""

from quickstudy.app.server.api import make_app
from quickstudy.app.server.limits import Limits
from quickstudy.app.server.models import Models

__all__ = ["Limits", "Models", "make_app"]

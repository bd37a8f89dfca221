"""How every picture looks: colours, figures, axes, and how they are written."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from quickstudy.files import write_bytes

INK, GREY, PALE = "#20262e", "#8a929c", "#e7eaee"
BLUE, GREEN, RED = "#2563a8", "#2b8a57", "#c8372d"
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %")
COLOURS = ("#2563a8", "#c8372d", "#2b8a57", "#b7791f", "#6b46a3", "#0e8f9c", "#b83280", "#5c6670")
"""For things told apart."""


def figure_of(width: float, height: float) -> Figure:
    """A white figure so many inches wide and high."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def axes_in(figure: Figure, *place: Any, title: str = "", xlabel: str = "", ylabel: str = "") -> Any:
    """Axes at a place of the figure, with light lines across and no box."""
    axes = figure.add_subplot(*place)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(xlabel, fontsize=9, color=GREY)
    axes.set_ylabel(ylabel, fontsize=9, color=GREY)
    axes.tick_params(labelsize=9, colors=INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.grid(axis="y", color=PALE)
    axes.set_axisbelow(True)
    return axes


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as a PNG, whole or not at all."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(buffer, format="png", dpi=130)
    write_bytes(Path(path), buffer.getvalue())

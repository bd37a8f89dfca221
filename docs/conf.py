"""The site of `make docs`: these pages by MyST, the API from docstrings, nothing from the network."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from quickstudy.version import __version__

project, author, release = "quickstudy", "quickstudy", __version__
project_copyright = "MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
root_doc = "index"
nitpicky = True
INTERNAL = ["Info", "Pictures", "Calibration", "Conv4", "ResNet", "MLP", "Draw", "Progress", "M", "S"]
"""Types that annotations name and nobody has to make: not documented."""
nitpick_ignore_regex = [
    ("py:.*", r"(?!quickstudy\b).*"),  # types of other libraries are named, not linked
    ("py:class", rf"quickstudy\..*\.({'|'.join(INTERNAL)})"),
]

myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"  # prompts, and what is printed, are not copied
copybutton_prompt_text = ">>> |... "
copybutton_prompt_is_regexp = True

default_role = "code"  # docstrings mark code by one backtick
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_rtype = False
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "quickstudy"
html_logo = html_favicon = "../src/quickstudy/app/studio/icon.svg"
html_static_path, html_css_files = ["static"], ["site.css"]
html_copy_source, html_show_sphinx = False, False
pygments_style, pygments_dark_style = "friendly", "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#2456c8", "color-brand-content": "#2456c8"},
    "dark_css_variables": {"color-brand-primary": "#8fb2ff", "color-brand-content": "#8fb2ff"},
}

ROOMS = ("", ".data", ".tasks", ".learners", ".nets", ".inner", ".outer", ".evaluation")


def public_names() -> dict[str, str]:
    """Where an object is defined → the shortest public name it goes by."""
    found: dict[str, str] = {}
    for room in ROOMS:
        module = importlib.import_module(f"quickstudy{room}")
        for name in module.__all__:
            thing = getattr(module, name)
            home, own = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
            if home and own:
                found.setdefault(f"{home}.{own}", f"quickstudy{room}.{name}")
    return found


def setup(app: Any) -> None:
    """An annotation names where a type is defined; it is linked to the public name that is documented."""
    names = public_names()

    def resolve(app: Any, env: Any, node: Any, text: Any) -> Any:
        public = names.get(node.get("reftarget", ""))
        if public is None or node.get("refdomain") != "py":
            return None
        domain, here = env.get_domain("py"), node.get("refdoc", env.docname)
        return domain.resolve_xref(env, here, app.builder, "obj", public, node, text)

    app.connect("missing-reference", resolve)

"""A command's options: a dataclass is parsed, its docstring is the help, a mistake is one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from quickstudy.errors import UserError

Options = TypeVar("Options")
REGISTRY = ConstructorRegistry()
PLAIN = {
    r"Error parsing (--\S+): ": r"\1: ",
    r"invalid literal for int\(\) with base 10: ('.*')": r"\1 is not a whole number",
    r"could not convert string to float: ('.*')": r"\1 is not a number",
    r"Expected 1 values": "it needs one",
}
"""How a mistake is told where the parser's own words are a programmer's."""


@REGISTRY.primitive_rule
def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`X | None` is asked for as X; None is to leave the option out."""
    kinds = get_args(info.type)
    if len(kinds) != 2 or type(None) not in kinds:
        return None
    (kind,) = (k for k in kinds if k is not type(None))
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        is_instance=lambda x: x is None or spec.is_instance(x),
        str_from_instance=lambda x: [] if x is None else spec.str_from_instance(x),
    )


@REGISTRY.primitive_rule
def in_words(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`str | Callable` is asked for as text: a function is for Python to give."""
    kinds = get_args(info.type)
    if len(kinds) != 2 or kinds[0] is not str or get_origin(kinds[1]) is not Callable:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(str, info.markers))
    return spec if isinstance(spec, PrimitiveConstructorSpec) else None


def hinted(annotation: Any) -> bool:
    """Whether an option says by itself what its default means."""
    return any(getattr(m, "help_behavior_hint", None) for m in get_args(annotation)[1:])


def quiet(kind: type[Options]) -> type[Options]:
    """The same options; the help shows no default where it is to leave the option out."""
    hints = get_type_hints(kind, include_extras=True)
    silent = tyro.conf.arg(help_behavior_hint="")
    own = [
        (f.name, Annotated[hints[f.name], silent], f.default)
        for f in dataclasses.fields(cast(Any, kind))
        if (f.default in (None, "") or isinstance(f.default, bool)) and not hinted(hints[f.name])
    ]
    return dataclasses.make_dataclass(kind.__name__, own, bases=(kind,), kw_only=True, frozen=True)


def parse(kind: type[Options], args: Sequence[str], command: str, description: str = "") -> Options:
    """Options of a dataclass from arguments.

    Raises:
        UserError: a mistake, in one line.
        SystemExit: after the help that was asked for.
    """
    said = io.StringIO()
    if {"-h", "--help"} & set(args):
        args = ["--help"]  # what is given already would be left out
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                quiet(kind),
                args=list(args),
                prog=f"quickstudy {command}",
                description=description or None,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
                registry=REGISTRY,
            )
    except SystemExit as end:
        if not end.code:
            raise
        # Without colours and the frame, which is of other marks where these cannot be encoded, and its title.
        text = re.sub(
            r"\x1b\[[0-9;]*m|╭.*╮|[│─╰╯]+|^\+?-+ .* -+\+?$|^\||\|$|\+?-{9,}\+?",
            " ",
            said.getvalue(),
            flags=re.M,
        )
        text = re.split(r"For full helptext|Full helptext|Argument helptext", text)[0]
        text = " ".join(text.split()).removeprefix(f"Error parsing {kind.__name__}: ")
        text = text.replace(f"Missing from quickstudy {command}", "missing")
        for pattern, words in PLAIN.items():
            text = re.sub(pattern, words, text)
        raise UserError(f"{text.rstrip('. ')} (quickstudy {command} --help)") from None

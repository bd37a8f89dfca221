"""What is searched: a range or choices for each option, by default read off the learner's signature."""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from quickstudy import nets
from quickstudy.errors import UserError, unknown
from quickstudy.learners import build, learner_class
from quickstudy.learners.registry import options
from quickstudy.outer.config import USUAL, TrainConfig

SEARCHABLE = (*USUAL, "train_way", "train_shot", "train_query", "body", "channels", "norm", "augment")
"""Options of `train` that can be searched, beside the learner's: none that changes what is validated on."""
ASIDE = ("labels", "max_way")
"""A learner's options that say which tasks it can answer, not how well it learns: by default left alone."""
DIGITS = 4
"""Significant digits of a rate that is drawn: the command that repeats a run can be read."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them.

    Args:
        whole: whole numbers only.
        log: drawn evenly by their logarithm.

    >>> str(Range(0.001, 0.5, log=True)), 0.5 in Range(0.001, 0.5), 2.5 in Range(1, 5, whole=True)
    ('0.001..0.5', True, False)
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False

    def draw(self, trial: Any, name: str, start: float | None = None) -> float:
        """The value that a trial of optuna's is to try, of few digits but for the one it starts with."""
        if self.whole:
            return int(trial.suggest_int(name, int(self.low), int(self.high)))
        value = float(trial.suggest_float(name, self.low, self.high, log=self.log))
        short = value if value == start else float(f"{value:.{DIGITS}g}")
        return min(max(short, self.low), self.high)

    def ends(self) -> tuple[float, ...]:
        """The values between which all others lie."""
        return self.low, self.high

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return self.low <= value <= self.high and not (self.whole and value != int(value))

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


@dataclass(frozen=True)
class Choice:
    """Some values, all equally likely at first.

    >>> str(Choice(("euclidean", "cosine")))
    'euclidean,cosine'
    """

    values: tuple[Any, ...]

    def draw(self, trial: Any, name: str, start: Any = None) -> Any:
        """The value that a trial of optuna's is to try."""
        return trial.suggest_categorical(name, list(self.values))

    def ends(self) -> tuple[Any, ...]:
        """All values."""
        return self.values

    def __contains__(self, value: object) -> bool:
        return any(v == value and type(v) is type(value) for v in self.values)

    def __str__(self) -> str:
        return ",".join(str(v).lower() if isinstance(v, bool) else str(v) for v in self.values)


Dimension: TypeAlias = Range | Choice
Space: TypeAlias = dict[str, Dimension]


def usual_space(config: TrainConfig, fixed: Collection[str] = ()) -> Space:
    """What is searched unless one says otherwise: the outer rate, and each option of the learner whose
    default says its scale.

    A rate is searched from a hundredth of its default to ten times it; another number above 0 from a tenth to
    ten times; `steps` from 1 to twice; a size at half, once and twice; what is on or off, or a word, in all
    its values.

    Args:
        config: its learner's options are searched.
        fixed: options to leave as `config` has them.

    Raises:
        UserError: nothing is left to search.

    >>> {name: str(values) for name, values in usual_space(TrainConfig(learner="matching")).items()}
    {'outer_lr': '3e-05..0.03', 'distance': 'cosine,euclidean', 'full_context': 'false,true', 'steps': '1..6'}
    """
    kind = learner_class(config.learner)
    space: Space = {"outer_lr": around("outer_lr", kind.outer.outer_lr)}
    of_functions = kind.for_functions if config.functions else {}
    for name, option in options(kind).items():
        words, default = _words(option.annotation), of_functions.get(name, option.default)
        if _optional(option.annotation) or name in ASIDE:
            continue
        if words or option.annotation is bool:
            values = words or (False, True)
            space[name] = Choice((default, *(v for v in values if v != default)))
        elif isinstance(default, (int, float)) and default > 0:
            space[name] = around(name, default)
    space = {name: values for name, values in space.items() if name not in fixed}
    if not space:
        raise UserError("every option that is searched by default is given: --search says what else")
    return space


def around(name: str, default: float) -> Dimension:
    """What is searched around a number's default."""
    if isinstance(default, int):
        if name == "steps":
            return Range(1, max(5, 2 * default), whole=True)
        return Choice(tuple(sorted({max(1, default // 2), default, 2 * default})))
    least = 100 if name.endswith("_lr") else 10
    return Range(float(f"{default / least:.6g}"), float(f"{default * 10:.6g}"), log=True)


def space_of(config: TrainConfig, said: Mapping[str, Any]) -> Space:
    """The space that is asked for, checked against the options there are.

    Args:
        said: by option a range, "0.001..0.5" or (0.001, 0.5), or choices, "16,32" or [16, 32].

    Raises:
        UserError: an option that does not exist or cannot be searched, or values that it cannot have.

    >>> space = space_of(TrainConfig(), {"inner_lr": "0.001..0.5", "steps": (1, 5)})
    >>> space["inner_lr"], space["steps"].whole
    (Range(low=0.001, high=0.5, whole=False, log=True), True)
    """
    kinds: dict[str, Any] = {name: get_type_hints(TrainConfig)[name] for name in SEARCHABLE}
    kinds |= {name: p.annotation for name, p in options(learner_class(config.learner)).items()}
    space: Space = {}
    for name, values in said.items():
        if name not in kinds:
            if name in {f.name for f in fields(TrainConfig)}:
                raise UserError(
                    f"{name} cannot be searched: it changes what is solved or measured, or how long. "
                    f"What can be: {', '.join(kinds)}"
                )
            raise unknown("option to search", name, kinds)
        space[name] = _dimension(name, kinds[name], values)
        for value in space[name].ends():
            tried(config, {name: value})
    return space


def start_of(space: Space, config: TrainConfig) -> dict[str, Any]:
    """The values that the first trial begins with: those of the options as given, where they are searched.

    >>> start_of({"steps": Range(2, 5, whole=True), "inner_lr": Range(0.1, 1)}, TrainConfig(learner="maml"))
    {'inner_lr': 0.4}
    """
    values = {**config.json(), **config.settings}
    return {name: values[name] for name, searched in space.items() if values[name] in searched}


def adjusted(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The options with these values, of the learner's or others.

    >>> adjusted(TrainConfig(), {"steps": 3, "outer_lr": 0.01}).settings["steps"]
    3
    """
    own = options(learner_class(config.learner))
    settings = {**config.settings, **{k: v for k, v in values.items() if k in own}}
    return replace(config, settings=settings, **{k: v for k, v in values.items() if k not in own})


def tried(config: TrainConfig, values: Mapping[str, Any]) -> None:
    """Refuse values that the learner, or `train`, does not take."""
    found = adjusted(config, values)
    try:
        build(found.learner, nets.mlp(4, (8,)), way=2, classes=2, settings=found.settings)
    except UserError as error:
        said = " ".join(f"{name}={value}" for name, value in values.items())
        raise UserError(f"{said} cannot be tried: {error}") from error


def _dimension(name: str, kind: Any, said: Any) -> Dimension:
    """A range or choices of values of this type."""
    if isinstance(said, (Range, Choice)):
        return said
    if isinstance(said, str):
        said = tuple(said.split("..")) if ".." in said else [word for word in said.split(",") if word]
    if not isinstance(said, (tuple, list)):
        raise UserError(f"{name}: a range is (low, high), choices are [a, b, …], not {said!r}")
    numeric = {int, float} & set(_kinds(kind))
    if isinstance(said, tuple):
        if len(said) != 2:
            raise UserError(f"{name}: a range has two ends, {name}=LOW..HIGH")
        if not numeric:
            known = _words(kind) or ("true", "false") if bool in _kinds(kind) or _words(kind) else ("A", "B")
            raise UserError(f"{name} is not a number, so it has no range: {name}={','.join(known)}")
        low, high = (_value(name, kind, end) for end in said)
        if not low < high:
            raise UserError(f"{name}: the range {low}..{high} is empty: its first end must be the lower one")
        if not math.isfinite(low) or not math.isfinite(high):
            raise UserError(f"{name}: the ends of a range must be finite, not {low}..{high}")
        if name.endswith("_lr") and low <= 0:
            raise UserError(f"{name}: a rate is searched by its logarithm, so from above 0, not from {low}")
        whole = float not in numeric
        return Range(low, high, whole=whole, log=not whole and low > 0)
    values = tuple(dict.fromkeys(_value(name, kind, word) for word in said))
    if len(values) < 2:
        raise UserError(
            f"{name}: one value is nothing to search: give two or more, {name}=A,B"
            + (f", or a range, {name}=LOW..HIGH" if numeric else "")
        )
    return Choice(values)


def _value(name: str, kind: Any, word: Any) -> Any:
    """A value of an option's type, from text or as it is."""
    kinds, words = _kinds(kind), _words(kind)
    if words:
        if word not in words:
            raise unknown(f"value of {name}", str(word), words)
        return word
    if bool in kinds:
        known = {"true": True, "false": False}
        if str(word).lower() not in known:
            raise unknown(f"value of {name}", str(word), known)
        return known[str(word).lower()]
    if int in kinds or float in kinds:
        whole = float not in kinds
        try:
            number = float(word)
            if whole and number != int(number):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"{name}: {word!r} is not a {'whole ' * whole}number") from None
        return int(number) if whole else number
    return word


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types of an option, None aside."""
    union = get_origin(annotation) in (Union, types.UnionType)
    return tuple(k for k in get_args(annotation) if k is not type(None)) if union else (annotation,)


def _optional(annotation: Any) -> bool:
    """Whether an option may be left to the learner."""
    return type(None) in get_args(annotation)


def _words(annotation: Any) -> tuple[str, ...]:
    """The words that an option can be."""
    return tuple(w for k in _kinds(annotation) if get_origin(k) is Literal for w in get_args(k))

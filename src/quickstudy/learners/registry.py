"""Learners by the names the command line uses, and their options read off their signatures."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from quickstudy.errors import UserError, in_brief, unknown
from quickstudy.learners.alpha_maml import AlphaMAML
from quickstudy.learners.anil import ANIL
from quickstudy.learners.anp import ANP
from quickstudy.learners.base import Learner
from quickstudy.learners.boil import BOIL
from quickstudy.learners.cnp import CNP
from quickstudy.learners.film import FiLM
from quickstudy.learners.fomaml import FOMAML
from quickstudy.learners.hypernet import HyperNet
from quickstudy.learners.imaml import IMAML
from quickstudy.learners.lstm import LSTMLearner
from quickstudy.learners.maml import MAML
from quickstudy.learners.maml_pp import MAMLPlusPlus
from quickstudy.learners.mann import MANN
from quickstudy.learners.matching import MatchingNet
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.learners.mmaml import MMAML
from quickstudy.learners.pixel_nn import PixelNN
from quickstudy.learners.pretrain import PretrainCentroid, PretrainFinetune
from quickstudy.learners.proto_maml import ProtoMAML
from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.r2d2 import R2D2
from quickstudy.learners.relation import RelationNet
from quickstudy.learners.reptile import Reptile
from quickstudy.learners.scratch import Scratch
from quickstudy.learners.semi_protonet import SemiProtoNet
from quickstudy.learners.siamese import Siamese
from quickstudy.learners.simpleshot import SimpleShot
from quickstudy.learners.snail import SNAIL
from quickstudy.learners.transformer import InContext
from quickstudy.learners.untrained import Untrained

LEARNERS: dict[str, type[Learner]] = {
    "maml": MAML,
    "fomaml": FOMAML,
    "anil": ANIL,
    "boil": BOIL,
    "reptile": Reptile,
    "meta-sgd": MetaSGD,
    "maml++": MAMLPlusPlus,
    "alpha-maml": AlphaMAML,
    "imaml": IMAML,
    "mmaml": MMAML,
    "protonet": ProtoNet,
    "proto-maml": ProtoMAML,
    "matching": MatchingNet,
    "siamese": Siamese,
    "relation": RelationNet,
    "semi-protonet": SemiProtoNet,
    "mann": MANN,
    "lstm": LSTMLearner,
    "snail": SNAIL,
    "cnp": CNP,
    "anp": ANP,
    "hypernet": HyperNet,
    "film": FiLM,
    "transformer": InContext,
    "r2d2": R2D2,
    "simpleshot": SimpleShot,
}
CONTROLS: dict[str, type[Learner]] = {
    "pixel-nn": PixelNN,
    "untrained": Untrained,
    "scratch": Scratch,
    "pretrain-finetune": PretrainFinetune,
    "pretrain-centroid": PretrainCentroid,
}
_GIVEN = ("body", "way", "classes")


def learner_class(name: str) -> type[Learner]:
    """The learner with this command-line name, or the class of yours that `module:Class` names.

    Raises:
        UserError: nothing goes by that name, or what does is no learner.

    >>> learner_class("maml").__name__, learner_class("quickstudy.learners:ANIL").__name__
    ('MAML', 'ANIL')
    """
    if ":" in name:
        return own_class(name)
    known = {**LEARNERS, **CONTROLS}
    if name not in known:
        raise unknown("learner", name, known)
    return known[name]


def own_class(name: str) -> type[Learner]:
    """The learner `module:Class`, whose module is imported from where Python finds modules."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"learner {name!r}: {module} cannot be imported: {in_brief(error)}") from error
        raise UserError(
            f"learner {name!r}: there is no module {module!r}; it must be installed, or in a folder that "
            "PYTHONPATH names"
        ) from None
    except AttributeError:
        raise UserError(f"learner {name!r}: {module} has no {attribute!r}") from None
    except Exception as error:
        raise UserError(f"learner {name!r}: {module} cannot be imported: {in_brief(error)}") from error
    if not (isinstance(found, type) and issubclass(found, Learner)):
        raise UserError(f"learner {name!r} is no class that builds on quickstudy.Learner")
    if inspect.isabstract(found):
        raise UserError(f"learner {name!r} has no {', '.join(sorted(found.__abstractmethods__))} yet")
    return found


def options(kind: type[Learner], *, typed: bool = True) -> dict[str, inspect.Parameter]:
    """The options of a learner: its keyword arguments besides body, way and classes, and where it hands on
    what else it is given, those of the class it builds on.

    Args:
        typed: whether annotations are looked up, which must then be names of the class's module.

    >>> options(ANIL)["test_steps"].annotation, options(ANIL)["steps"].default
    (int | None, 5)
    """
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        own = inspect.signature(base, eval_str=typed).parameters
        named = {k: p for k, p in own.items() if p.kind is p.KEYWORD_ONLY and k not in _GIVEN}
        found = {**named, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
    return found


def option_help(kind: type[Learner]) -> dict[str, str]:
    """What each option means, from the `Args:` of the docstrings of the class and of those it builds on."""
    helps: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "").partition("Args:")[2].partition("\n\n")[0]
        entries = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", text, re.MULTILINE)
        helps |= {name: " ".join(words.split()) for name, words in entries}
    return {name: helps[name] for name in options(kind) if name in helps}


def build(
    name: str, body: nn.Module, *, way: int, classes: int, settings: Mapping[str, Any] | None = None
) -> Learner:
    """Make a learner by name.

    Args:
        body: the net; ignored by learners without one.
        way: classes of the tasks to solve.
        classes: number of meta-train classes, for pretraining.
        settings: its options.

    Raises:
        UserError: an option this learner does not have.
    """
    kind = learner_class(name)
    for key in settings or {}:
        if not options(kind):
            raise UserError(f"{name} has no options, so not {key!r} either")
        if key not in options(kind):
            raise unknown(f"option of {name}", key, options(kind))
    available = {"body": body, "way": way, "classes": classes}
    takes = inspect.signature(kind).parameters
    return kind(**{k: v for k, v in available.items() if k in takes}, **(settings or {}))

"""A fitted estimator as one file: the learner's weights, the examples, and a JSON header. No pickle."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from quickstudy.data.pictures import Pictures
from quickstudy.errors import RunError, UserError, in_brief
from quickstudy.learners import Learner
from quickstudy.outer.load_run import make_learner
from quickstudy.outer.tensor_file import read_tensors, write_tensors

if TYPE_CHECKING:
    from quickstudy.app.estimators.adapting import FewShotEstimator

KINDS = "biufU"
"""Of NumPy's types, those that JSON can hold as labels: truth values, numbers, text."""
NOTED = ("_white", "_inverted", "n_features_in_")


def save(estimator: FewShotEstimator, path: str | Path) -> None:
    """Write a fitted estimator; see `FewShotEstimator.save`."""
    check_is_fitted(estimator)
    learner, pictures = estimator.learner, estimator.pictures
    assert learner is not None
    names = getattr(estimator, "feature_names_in_", None)
    header: dict[str, Any] = {
        "estimator": type(estimator).__name__,
        "form": estimator._form,
        "config": None if estimator.config is None else without_folders(estimator.config),
        "pictures": None if pictures is None else asdict(pictures),
        "polarity": estimator.polarity,
        "noted": {name: getattr(estimator, name) for name in NOTED if hasattr(estimator, name)},
        "feature_names": None if names is None else [str(name) for name in names],
    }
    with learner.in_use():  # in another thread its modules may hold a task's weights
        tensors = {f"learner.{name}": tensor for name, tensor in learner.state_dict().items()}
    tensors["x"] = estimator._x
    if estimator._unlabelled is not None:
        tensors["unlabelled"] = estimator._unlabelled
    if hasattr(estimator, "classes_"):
        header["classes"] = labels_out(estimator.classes_)
        tensors["y"] = torch.from_numpy(np.searchsorted(estimator.classes_, estimator._y))
    else:
        tensors["y"] = torch.from_numpy(np.asarray(estimator._y))
    write_tensors(Path(path), tensors, header)


def load(kind: type[FewShotEstimator], path: str | Path, learner: Learner | None, device: str | None) -> Any:
    """Read what `save` wrote; see `FewShotEstimator.load`."""
    try:
        tensors, header = read_tensors(Path(path))
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file") from None
    if "estimator" not in header:
        raise RunError(f"{path} is not a saved estimator")
    if header["estimator"] != kind.__name__:
        raise RunError(f"{path} holds a {header['estimator']}: {header['estimator']}.load reads it")
    weights = {k.removeprefix("learner."): v for k, v in tensors.items() if k.startswith("learner.")}
    try:
        if learner is None:
            if header["config"] is None:
                raise UserError(
                    f"{path} is of a learner of your own: make it again, and load({str(path)!r}, learner=…)"
                )
            check_known(str(header["config"].get("learner")), path)
            learner = make_learner(header["config"], device)
        learner.load_state_dict(weights)
        learner.eval()
        form = header["pictures"]
        steps, transductive = header.get("form", (None, False))
        found = kind(
            learner,
            steps=steps,
            transductive=transductive,
            pictures=None if form is None else Pictures(form["shape"], form["polarity"]),
            polarity=header["polarity"],
            config=header["config"],
        )
        for name, value in header["noted"].items():
            if name in NOTED:
                setattr(found, name, value)
        if header["feature_names"] is not None:
            found.feature_names_in_ = np.array(header["feature_names"], dtype=object)
        found._form = steps, transductive
        found._x, found._unlabelled, y = tensors["x"], tensors.get("unlabelled"), tensors["y"].numpy()
        if "classes" in header:
            found.classes_ = labels_in(header["classes"])
            y = found.classes_[y]
        found._y = y
        found._predictor = found._adapted()  # which finds what does not fit
    except UserError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"{path} does not hold a fitted {kind.__name__}: {in_brief(error)}") from error
    return found


def check_known(name: str, path: str | Path) -> None:
    """Refuse a class `module:Class` whose module the program has not imported: a file that comes from others
    is not to choose what code runs.

    Raises:
        UserError: it is of such a one.
    """
    module = name.partition(":")[0]
    if ":" in name and module not in sys.modules:
        raise UserError(f"{path} is of the learner {name}: import {module} first, if you trust it")


def without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's options but for where its data lay and what it was started from: a file is given to others.

    >>> without_folders({"data": "/home/ada/signs", "start": "/home/ada/runs/a", "way": 5})
    {'data': 'signs', 'start': None, 'way': 5}
    """
    return {**config, "data": Path(str(config["data"])).name, "start": None}


def labels_out(classes: np.ndarray) -> dict[str, Any]:
    """Labels as JSON.

    Raises:
        UserError: they are neither numbers nor text.

    >>> labels_out(np.array(["cat", "dog"]))
    {'type': '<U3', 'labels': ['cat', 'dog']}
    """
    texts = classes.dtype == object and all(isinstance(label, str) for label in classes)
    if classes.dtype.kind not in KINDS and not texts:
        raise UserError(f"labels of type {classes.dtype} cannot be saved: fit numbers or text")
    return {"type": classes.dtype.str, "labels": classes.tolist()}


def labels_in(saved: dict[str, Any]) -> np.ndarray:
    """What `labels_out` made.

    >>> labels_in({"type": "<i8", "labels": [3, 5]})
    array([3, 5])
    """
    kind = np.dtype(saved["type"])
    if kind.kind not in KINDS + "O":
        raise ValueError(f"labels of type {kind}")
    return np.array(saved["labels"], dtype=kind)

"""A fitted classifier, or a learner's embedding, as an ONNX file, for programs without Python or torch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quickstudy.errors import UserError, in_brief
from quickstudy.evaluation.evaluate import normalising
from quickstudy.files import write_bytes
from quickstudy.learners import EmbeddingLearner, Learner
from quickstudy.nets.native import allowing
from quickstudy.tasks import Support
from quickstudy.version import __version__

if TYPE_CHECKING:
    from quickstudy.app.estimators.adapting import FewShotEstimator

EXAMPLES = "examples"
"""The name of the input, `[n, …]`."""


def export(estimator: FewShotEstimator, path: str | Path) -> None:
    """Write the fitted predictor; see `FewShotEstimator.export`."""
    predictor, learner = estimator.predictor_, estimator.learner_
    function = predictor.bare
    if predictor.transductive:
        raise UserError("a prediction that depends on the other queries cannot be exported")
    if function is None:
        raise UserError(f"{type(learner).__name__} makes predictors of its own, which cannot be exported")
    inverted, classes = getattr(estimator, "_inverted", False), getattr(estimator, "classes_", None)

    def answer(x: Tensor) -> Tensor:
        found: Tensor = function(1 - x if inverted else x)
        return found if predictor.way is None else found.softmax(-1)

    notes: dict[str, Any] = {}
    if classes is not None:
        seen = estimator._y
        notes["classes"] = [label for label in classes.tolist() if label in seen]
    if estimator.pictures is not None:
        notes["pictures"] = (
            "fractions from 0, black, to 1, white; as those fitted, dark on light or the reverse"
        )
    said = "probabilities" if predictor.way else "mean_and_log_std" if predictor.spread else "values"
    with learner.in_use():
        write_onnx(answer, estimator._x[:2], Path(path), said, notes)


def export_embedding(learner: Learner, shape: tuple[int, ...], path: str | Path, polarity: str | None) -> str:
    """Write the embedding of a learner that compares: pictures `[n, C, H, W]` → features `[n, D]`.

    Returns:
        How it normalises.

    Raises:
        UserError: a learner without one, or one that normalises by a support set and has no averages.
    """
    if not isinstance(learner, EmbeddingLearner):
        raise UserError(
            f"{type(learner).__name__} has no embedding of its own: give a support set, whose predictor is "
            "exported"
        )
    mode = None if not learner.norms() else "running"
    if mode is not None and mode not in learner.modes:
        raise UserError("this net normalises by a support set: give one, whose predictor is exported")
    x = torch.zeros(2, *shape)
    with normalising(learner, mode), learner.in_use(), torch.no_grad():
        _, embed, _ = learner.embedded(Support(x, torch.arange(2), 2))
        notes = {"pictures": f"fractions from 0, black, to 1, white; {polarity or 'of any polarity'}"}
        write_onnx(embed, x, Path(path), "features", notes)
    return "" if mode is None else "normalised by running averages of meta-training"


def write_onnx(
    function: Callable[[Tensor], Tensor], x: Tensor, path: Path, said: str, notes: Mapping[str, Any]
) -> None:
    """A function of any number of examples like `x` `[n, …]` as an ONNX file, with notes in its metadata.

    Raises:
        UserError: onnx is not installed, or the function has a part that it has no word for.
    """
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        raise UserError("export needs onnx and onnxscript: pip install 'quickstudy[export]'")
    net = Function(function).eval()
    dims = ({0: torch.export.Dim("n")},)
    with torch.no_grad(), allowing(False), quiet():
        try:
            program = torch.onnx.export(
                net,
                (x.cpu(),),
                dynamo=True,
                dynamic_shapes=dims,
                input_names=[EXAMPLES],
                output_names=[said],
                verbose=False,
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise UserError(
                f"this predictor has a part that ONNX has no word for: {in_brief(error)}"
            ) from error
    assert program is not None
    model = program.model_proto
    model.producer_name, model.producer_version = "quickstudy", __version__
    for name, value in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
    write_bytes(path, model.SerializeToString())


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, examples: Tensor) -> Tensor:
        return self.function(examples)


@contextmanager
def quiet() -> Iterator[None]:
    """Within this block torch's exporter does not say what it is about, which no user can act on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

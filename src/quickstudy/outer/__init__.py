"""Across tasks: meta-training, the measuring loop, the run folder."""

from quickstudy.outer.checkpoint import History
from quickstudy.outer.measure import Measurement, measure
from quickstudy.outer.meta_train import meta_train
from quickstudy.outer.run_folder import RunFolder

__all__ = ["History", "Measurement", "RunFolder", "measure", "meta_train"]

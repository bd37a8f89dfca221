"""Bodies (input → features): plain torch modules, written for one task."""

from quickstudy.nets.adapters import lora
from quickstudy.nets.attention import Attention, TransformerBlock, attend
from quickstudy.nets.conv import ConvBlock, conv4
from quickstudy.nets.convert import convert_batch_norm
from quickstudy.nets.film import film_layers, filmed
from quickstudy.nets.lrua import LRUACell
from quickstudy.nets.lstm import LSTMCell
from quickstudy.nets.mirrored import Mirrored
from quickstudy.nets.mlp import mlp
from quickstudy.nets.norm import BatchNorm, Moments, normalised_by
from quickstudy.nets.ntm import NTMCell
from quickstudy.nets.per_step import PerStep, per_step
from quickstudy.nets.resnet import resnet
from quickstudy.nets.scan import scan
from quickstudy.nets.task_encoder import TaskEncoder

__all__ = [
    "Attention",
    "BatchNorm",
    "ConvBlock",
    "LRUACell",
    "LSTMCell",
    "Mirrored",
    "Moments",
    "NTMCell",
    "PerStep",
    "TaskEncoder",
    "TransformerBlock",
    "attend",
    "conv4",
    "convert_batch_norm",
    "film_layers",
    "filmed",
    "lora",
    "mlp",
    "normalised_by",
    "per_step",
    "resnet",
    "scan",
]

"""The methods: one a file, its citation first; floors and controls are learners too."""

from quickstudy.learners.alpha_maml import AlphaMAML
from quickstudy.learners.anil import ANIL
from quickstudy.learners.anp import ANP
from quickstudy.learners.base import Learner
from quickstudy.learners.boil import BOIL
from quickstudy.learners.calling import call
from quickstudy.learners.cnp import CNP
from quickstudy.learners.embedding import EmbeddingLearner
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
from quickstudy.learners.predictor import Predictor
from quickstudy.learners.pretrain import PretrainCentroid, PretrainFinetune
from quickstudy.learners.proto_maml import ProtoMAML
from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.r2d2 import R2D2
from quickstudy.learners.registry import CONTROLS, LEARNERS, build, learner_class
from quickstudy.learners.relation import RelationNet
from quickstudy.learners.reptile import Reptile
from quickstudy.learners.scratch import Scratch
from quickstudy.learners.semi_protonet import SemiProtoNet
from quickstudy.learners.siamese import Siamese
from quickstudy.learners.simpleshot import SimpleShot
from quickstudy.learners.snail import SNAIL
from quickstudy.learners.transformer import InContext
from quickstudy.learners.untrained import Untrained

__all__ = [
    "ANIL",
    "ANP",
    "BOIL",
    "CNP",
    "CONTROLS",
    "FOMAML",
    "IMAML",
    "LEARNERS",
    "MAML",
    "MANN",
    "MMAML",
    "R2D2",
    "SNAIL",
    "AlphaMAML",
    "EmbeddingLearner",
    "FiLM",
    "HyperNet",
    "InContext",
    "LSTMLearner",
    "Learner",
    "MAMLPlusPlus",
    "MatchingNet",
    "MetaSGD",
    "PixelNN",
    "Predictor",
    "PretrainCentroid",
    "PretrainFinetune",
    "ProtoMAML",
    "ProtoNet",
    "RelationNet",
    "Reptile",
    "Scratch",
    "SemiProtoNet",
    "Siamese",
    "SimpleShot",
    "Untrained",
    "build",
    "call",
    "learner_class",
]

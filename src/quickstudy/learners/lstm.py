"""Learning to learn by an LSTM: Hochreiter, Younger, Conwell 2001, Learning to learn using gradient descent.

ω are the weights of a recurrent net that reads examples with their labels one step late (`stream.py`). After
training on many tasks its dynamics are a learning algorithm, and what it knows of a task is its state (h, c):

    (hₜ, cₜ) = LSTM([f(xₜ), yₜ₋₁], (hₜ₋₁, cₜ₋₁)),   ŷₜ = W hₜ.
"""

from __future__ import annotations

from torch import nn

from quickstudy.learners.labels import Labels
from quickstudy.learners.stream import StreamLearner
from quickstudy.nets.lstm import LSTMCell
from quickstudy.options import at_least_one


class LSTMLearner(StreamLearner):
    """An LSTM (Hochreiter et al. 2001) reads the support set; its state is what it has learned.

    Args:
        body: any module with a `features` attribute.
        way: classes it answers, or output dimensions of a regression.
        hidden: units of the LSTM.

    Example:
        >>> import torch
        >>> from quickstudy.nets import mlp
        >>> learner = LSTMLearner(mlp(1), way=1)
        >>> learner.adapt([[0.0], [1.0]], [0.0, 2.0])([[0.5]]).shape
        torch.Size([1, 1])
    """

    def __init__(self, body: nn.Module, *, way: int, hidden: int = 200, labels: Labels = "one-hot") -> None:
        at_least_one(hidden=hidden)
        super().__init__(body, way=way, cell=lambda inputs: LSTMCell(inputs, hidden), labels=labels)
        self.hidden = hidden

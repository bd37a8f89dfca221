"""Memory-augmented neural networks: Santoro, Bartunov, Botvinick, Wierstra, Lillicrap 2016, arXiv 1605.06065.

ω are the weights of an LSTM controller and its heads. At each step of a stream (`stream.py`) it is shown an
example and the label of the one before; its heads write to rows of a memory that were not used for long and
read others by content (`nets/lrua.py`), so that an example and its label can be recalled much later:

    iₜ = [f(xₜ), yₜ₋₁],   (hₜ, cₜ) = LSTM([iₜ, iₜ₋₁, rₜ₋₁], (hₜ₋₁, cₜ₋₁)),   ŷₜ = W [hₜ, rₜ].

The paper's controller is not shown iₜ₋₁ again, which brings the example that the label is of.
"""

from __future__ import annotations

from torch import nn

from quickstudy.errors import UserError
from quickstudy.learners.labels import Labels
from quickstudy.learners.stream import StreamLearner
from quickstudy.nets.lrua import LRUACell
from quickstudy.options import at_least_one


class MANN(StreamLearner):
    """MANN (Santoro et al. 2016): an LSTM with a memory reads the support set, and remembers it.

    Args:
        body: any module with a `features` attribute; one that only flattens is the paper's.
        way: classes it answers, or output dimensions of a regression.
        hidden: units of the controller.
        rows: how many the memory has.
        memory_width: numbers in a row of the memory.
        heads: how many read from the memory and write to it.

    Example:
        >>> import torch
        >>> from quickstudy.nets import mlp
        >>> learner = MANN(mlp(4), way=2, labels="strings")
        >>> learner.adapt(torch.rand(6, 4), [0, 0, 1, 1, 2, 2])(torch.rand(5, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        way: int,
        hidden: int = 200,
        rows: int = 128,
        memory_width: int = 40,
        heads: int = 4,
        labels: Labels = "one-hot",
    ) -> None:
        at_least_one(hidden=hidden, rows=rows, memory_width=memory_width, heads=heads)
        if heads > rows:
            raise UserError(f"heads must be from 1 to the {rows} rows of the memory, not {heads}")
        super().__init__(
            body,
            way=way,
            cell=lambda inputs: LRUACell(inputs, hidden=hidden, rows=rows, width=memory_width, heads=heads),
            labels=labels,
        )
        self.hidden, self.rows, self.memory_width, self.heads = hidden, rows, memory_width, heads

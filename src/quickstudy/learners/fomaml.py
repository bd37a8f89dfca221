"""First-order MAML: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2.

As MAML, but each inner gradient counts as a constant of the meta-gradient, which is then ∇L'(θ'_S).
"""

from __future__ import annotations

from quickstudy.learners.maml import MAML


class FOMAML(MAML):
    """First-order MAML: the query gradient at the adapted weights is applied to the initialisation.

    Its arguments are MAML's.

    Example:
        >>> from quickstudy.nets import mlp
        >>> learner, x, y = FOMAML(mlp(2), way=2, steps=3), torch.rand(4, 2), [0, 0, 1, 1]
        >>> len(learner.adapt(x, y).losses)
        3
    """

    method = "first-order"

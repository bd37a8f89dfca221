"""First-order MAML: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2.

As MAML, but each inner gradient counts as a constant of the meta-gradient, which is then ∇L'(θ'_S).
"""

from __future__ import annotations

from quickstudy.learners.maml import MAML


class FOMAML(MAML):
    """First-order MAML: the query gradient at the adapted weights is applied to the initialisation.

    Args:
        body: any module with a `features` attribute.
        way: classes the head answers.
        inner_lr: α, the inner loop's rate.
        steps: S, inner steps in meta-training and in use.
        adapt: what the inner loop moves: all, head, body, filters, or a regular expression.
    """

    first_order = True

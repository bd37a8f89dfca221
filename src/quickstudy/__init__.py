"""Meta-learning: teach a model on many small tasks so that it learns a new one from a handful of examples.

>>> import quickstudy as qs
>>> train, val, test = qs.data.glyphs(classes=30).split()
>>> learner = qs.MAML(qs.nets.conv4(channels=8), way=5, inner_lr=0.4, steps=1)
"""

__version__ = "0.1.0"

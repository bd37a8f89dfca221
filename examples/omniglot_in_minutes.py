# %% [markdown]
# # Characters of unseen alphabets, in minutes
#
# Prototypical networks learn from Omniglot's meta-train characters how to tell characters apart, and are then
# asked for ones that they have never seen, from one example each. Beside them what one would have without
# meta-learning.
#
#     QUICKSTUDY_DATA=DIR python examples/omniglot_in_minutes.py
#
# Some minutes on one core; without the data 16 MB are downloaded. `--quick` takes a few seconds.

# %%
import argparse

import torch

import quickstudy as qs
from quickstudy.outer.progress import Bar

options = argparse.ArgumentParser(
    description="Characters of unseen alphabets: prototypical networks on Omniglot."
)
options.add_argument("--quick", action="store_true", help="a few seconds instead of some minutes")
quick = options.parse_known_args()[0].quick  # a notebook has words of its own
iterations, n_tasks, channels = (120, 40, 16) if quick else (500, 400, 32)

# %% [markdown]
# Classes, not examples, are divided: a test character appears in no task of meta-training.

# %%
train, val, test = qs.data.omniglot().split()
unseen = qs.tasks(test, way=5, shot=1, seed=2)
print(f"{len(train)} characters to learn from, {len(test)} to be measured on")

# %% [markdown]
# Meta-training: in each step one task of 20 characters, as the paper advises; it is harder than the tasks to
# come.

# %%
torch.manual_seed(0)
learner = qs.ProtoNet(qs.nets.conv4(channels))
untrained = qs.evaluate(qs.Untrained(learner.body), unseen, n_tasks)
pixels = qs.evaluate(qs.PixelNN(), unseen, n_tasks)
history = qs.meta_train(
    learner,
    qs.tasks(train, way=20, shot=1, query=5),
    validation=qs.tasks(val, way=5, shot=1, seed=1),
    validation_tasks=n_tasks // 4,
    iterations=iterations,
    meta_batch=1,
    outer_lr=0.005,
    schedule="cosine",
    progress=Bar("prototypes"),
)

# %% [markdown]
# The floors say how much of it is meta-learning's: the nearest neighbour of pixels, and the same net
# untrained. All are measured on the same tasks. More shots help, and more ways are harder; neither asks for
# further training.

# %%
ours = qs.evaluate(learner, unseen, n_tasks)
results = {"nearest pixels": pixels, "untrained net": untrained, "prototypes": ours}
for name, found in results.items():
    print(f"{name:>16}: {found.accuracy:.1%} ± {found.ci95:.1%}")
for way, shot in ((5, 5), (20, 1)):
    found = qs.evaluate(learner, qs.tasks(test, way=way, shot=shot, seed=2), n_tasks)
    print(f"{way}-way {shot}-shot: {found.accuracy:.1%} ± {found.ci95:.1%}")

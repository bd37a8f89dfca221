# %% [markdown]
# # A few labels, with scikit-learn's tools
#
# Ten handwritten characters that nobody trained on, with one to ten labels each. A learner that was
# meta-trained on other characters of Omniglot is a scikit-learn classifier: to fit is to adapt. It stands
# beside classifiers that know nothing but the labels, in the same cross-validation.
#
#     QUICKSTUDY_DATA=DIR python examples/your_classes_sklearn.py
#
# Some minutes on one core; without the data 16 MB are downloaded. `--quick` takes a few seconds.

# %%
import argparse

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

import quickstudy as qs

options = argparse.ArgumentParser(description="A few labels, with scikit-learn's tools.")
options.add_argument("--quick", action="store_true", help="a few seconds instead of some minutes")
quick = options.parse_known_args()[0].quick  # a notebook has words of its own
iterations, channels, draws = (150, 8, 4) if quick else (500, 32, 20)

# %% [markdown]
# Meta-training is done once; `out="runs/characters"` would keep it for other days.

# %%
how = {"train_way": 20, "train_query": 5, "outer_lr": 0.005, "validation_tasks": 20, "threads": 1}
trainer = qs.MetaTrainer("protonet", way=10, iterations=iterations, channels=channels, options=how)
trainer.fit("omniglot")

# %% [markdown]
# Ten of the classes that were kept for testing, 20 pictures each. Rows of pixels suit all three.

# %%
test = qs.data.omniglot().split().test
unseen = test.subset(range(0, len(test), len(test) // 10)[:10])
X = torch.cat([unseen.examples(c) for c in range(10)]).flatten(1).numpy() / 255
y = [unseen.names[c] for c in range(10) for _ in unseen.examples(c)]

# %% [markdown]
# Each score is of a hundred pictures, by classifiers fitted to a random draw of so many labels a class; the
# mean of 20 draws, the same for all.

# %%
classifiers = {
    "meta-learned": trainer.classifier(),
    "nearest neighbour": KNeighborsClassifier(1),
    "logistic regression": LogisticRegression(max_iter=2000),
}
scores: dict[str, list[float]] = {name: [] for name in classifiers}
for shots in (1, 3, 10):
    labels = StratifiedShuffleSplit(draws, train_size=10 * shots, test_size=100, random_state=0)
    for name, classifier in classifiers.items():
        scores[name].append(float(cross_val_score(classifier, X, y, cv=labels).mean()))
print(f"{'labels a class':>20}      1      3     10")
for name, row in scores.items():
    print(f"{name:>20}", *(f"{score:6.1%}" for score in row))

# %% [markdown]
# # Functions from a few points, and how sure to be
#
# An attentive neural process reads some points of a sinusoid and says what lies between them, with a standard
# deviation. Meta-trained on many sinusoids, it knows the family; the points tell which one it is.
#
#     python examples/sinusoid_uncertainty.py
#
# Some minutes on one core; the fits are drawn into sinusoids.png. `--quick` takes a few seconds.

# %%
import argparse

import torch

import quickstudy as qs
from quickstudy.evaluation.fit import fits
from quickstudy.evaluation.style import BLUE, GREY, INK, axes_in, figure_of, save
from quickstudy.outer.progress import Bar

options = argparse.ArgumentParser(description="Functions from a few points, and how sure to be.")
options.add_argument("--quick", action="store_true", help="a few seconds instead of some minutes")
quick = options.parse_known_args()[0].quick  # a notebook has words of its own
iterations, n_tasks = (250, 30) if quick else (4000, 500)

# %% [markdown]
# A task: a sinusoid of random amplitude and phase, five of its points shown, thirty asked for.

# %%
torch.manual_seed(0)
learner = qs.ANP(qs.nets.mlp(1, (64, 64)), way=1)
history = qs.meta_train(
    learner, qs.Sinusoids(shot=5, query=30), iterations=iterations, schedule="cosine", progress=Bar("ANP")
)
print(qs.evaluate(learner, qs.Sinusoids(shot=5, query=30, seed=1), n_tasks))

# %% [markdown]
# Is it as sure as it may be? Of new sinusoids, the share of points within two standard deviations (95 % would
# be exact), and the deviation near points that were shown, and far from all of them.

# %%
inside, near, far = [], [], []
for index in range(n_tasks):
    task = qs.Sinusoids(shot=5, query=100, seed=2).task(index)
    mean, std = learner.adapt(task.support).gaussian(task.query.x)
    inside.append((mean - task.query.y).abs() < 2 * std)
    gap = torch.cdist(task.query.x, task.support.x).min(1).values
    near.append(std[gap < 0.2])
    far.append(std[gap > 1.5])
coverage = float(torch.cat(inside).float().mean())
certain, doubtful = (float(torch.cat(part).mean()) for part in (near, far))
print(f"{coverage:.0%} within two deviations; one is {certain:.2f} near points shown, {doubtful:.2f} far")

# %% [markdown]
# One new sinusoid, of which it is shown more and more.

# %%
whole = qs.Sinusoids(shot=10, query=200, seed=9).task(3)
order = whole.query.x[:, 0].argsort()
figure = figure_of(10.2, 3.0)
for place, shown in enumerate((1, 3, 10)):
    support = qs.Support(whole.support.x[:shown], whole.support.y[:shown])
    x, found = fits(learner, qs.Task(support, whole.query))
    ((_, fit),) = found.items()
    assert fit.std is not None
    axes = axes_in(figure, 1, 3, place + 1, title=f"{shown} point{'s' * (shown > 1)}")
    mean, band = fit.mean[:, 0], 2 * fit.std[:, 0]
    axes.plot(whole.query.x[order, 0], whole.query.y[order, 0], ":", color=GREY)
    axes.fill_between(x[:, 0], mean - band, mean + band, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(x[:, 0], mean, color=BLUE, linewidth=2)
    axes.plot(support.x[:, 0], support.y[:, 0], "o", color=INK)
    axes.set_ylim(-6, 6)
save(figure, "sinusoids.png")

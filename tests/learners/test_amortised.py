"""Learners by a forward pass: each by its formulas, and normal distributions for values."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.errors import DataError, TaskError, UserError
from quickstudy.inner import estimate
from quickstudy.learners import ANP, CNP, MAML, FiLM, HyperNet, InContext, Learner, ProtoNet, build
from quickstudy.learners.targets import log_likelihood
from quickstudy.nets import conv4, mlp
from quickstudy.outer import RunFolder, meta_train
from quickstudy.tasks import GaussianProcesses, Lines, Task

from .common import Make, close

pytestmark = pytest.mark.usefixtures("float64")

REGRESSORS: dict[str, Callable[..., Learner]] = {
    "cnp": lambda body, way=1: CNP(body, way=way, hidden=16),
    "anp": lambda body, way=1: ANP(body, way=way, hidden=16, heads=4, latent=6),
    "transformer": lambda body, way=1: InContext(body, max_way=max(way, 3), hidden=16, depth=2, heads=4),
}
AMORTISED = [*REGRESSORS, "hypernet", "film"]


@pytest.fixture
def points() -> Task:
    """Three tasks of 6 points and 5 queries."""
    return GaussianProcesses(shot=6, query=5, seed=1).batch(np.arange(3)).to(torch.float64)


def moved(learner: Learner) -> Learner:
    """The learner, no weight of it zero."""
    with torch.no_grad():
        for p in learner.parameters():
            p += 0.1 * torch.randn_like(p)
    return learner


def test_log_likelihood_by_hand() -> None:
    mean, std, y = [1.0, -2.0], [0.5, 3.0], [1.5, 1.0]
    density = [
        math.exp(-((v - m) ** 2) / (2 * s**2)) / math.sqrt(2 * math.pi * s**2)
        for m, s, v in zip(mean, std, y, strict=True)
    ]
    output = torch.tensor([[m, math.log(s)] for m, s in zip(mean, std, strict=True)])
    wanted = (math.log(density[0]) + math.log(density[1])) / 2
    assert log_likelihood(output, torch.tensor(y)[:, None]).item() == pytest.approx(wanted, rel=1e-12)
    # Two values a point: its density is the product of theirs.
    both = torch.tensor([[*mean, math.log(std[0]), math.log(std[1])]])
    assert log_likelihood(both, torch.tensor([y])).item() == pytest.approx(2 * wanted, rel=1e-12)


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regression_is_a_normal_distribution(name: str, points: Task) -> None:
    learner, task = moved(REGRESSORS[name](mlp(1))), next(points.unbatch())
    predictor = learner.adapt(task.support)
    assert predictor(task.query.x).shape == (5, 2)
    mean, std = predictor.gaussian(task.query.x)
    assert (std >= 0.01).all()
    judged = learner.judge(task)
    nats = torch.distributions.Normal(mean, std).log_prob(task.query.y).mean()
    close(judged.loss, -nats, "the outer loss")
    close(judged.metrics["log_likelihood"], nats, "log-likelihood")
    close(judged.metrics["loss"], (mean - task.query.y).square().mean(), "mean squared error")
    with pytest.raises(DataError, match="no class probabilities"):
        predictor.probabilities(task.query.x)


def test_who_is_not_sure_has_no_standard_deviations(batch: Task) -> None:
    task = next(batch.unbatch())
    classes = build("cnp", conv4(4, size=16, blocks=2), way=3, classes=8).adapt(task.support)
    with pytest.raises(DataError, match=r"answers classes: probabilities\(x\) says how sure"):
        classes.gaussian(task.query.x)
    with pytest.raises(DataError, match="has no standard deviations"):
        MAML(mlp(1), way=1).adapt([[0.0]], [1.0]).gaussian(task.query.x)


@pytest.mark.parametrize("name", REGRESSORS)
def test_several_values_and_fewer_than_columns(name: str) -> None:
    x, y, q = torch.rand(6, 2), torch.rand(6, 2), torch.rand(4, 2)
    mean, std = REGRESSORS[name](mlp(2), 3).adapt(x, y).gaussian(q)
    assert mean.shape == std.shape == (4, 2)
    with pytest.raises(DataError, match="targets of 4 values, but this learner predicts at most 3"):
        REGRESSORS[name](mlp(2), 3).adapt(x, torch.rand(6, 4))


@pytest.mark.parametrize("name", REGRESSORS)
def test_more_ways_than_columns_are_refused(name: str) -> None:
    learner, x = REGRESSORS[name](mlp(2), 3), torch.rand(6, 2)
    assert learner.adapt(x, [0, 0, 1, 1, 0, 1])(x).shape == (6, 2)
    instead = "max_way" if name == "transformer" else "protonet, r2d2 and all that compare"
    with pytest.raises(TaskError, match=f"answers at most 3 ways, not 6; .*{instead}"):
        learner.adapt(x, torch.arange(6))


@pytest.mark.parametrize("strategy", ["vmap", "threads"])
@pytest.mark.parametrize("name", REGRESSORS)
def test_strategies_agree_on_regressions(name: str, strategy: str, points: Task) -> None:
    learner = moved(REGRESSORS[name](mlp(1)))
    prepared = learner.prepare(points, torch.Generator().manual_seed(0))
    (loop, wanted), (mapped, found) = (estimate(learner, prepared, s) for s in ("loop", strategy))
    close(mapped.loss, loop.loss, "loss")
    for k in wanted:
        close(found[k], wanted[k], k)


@pytest.mark.parametrize("name", REGRESSORS)
def test_meta_gradient_of_a_regression(name: str, points: Task, agrees: Callable[..., None]) -> None:
    body = nn.Sequential(nn.Linear(1, 4), nn.Tanh())
    body.features = 4
    learner = moved(REGRESSORS[name](body))
    for module in list(learner.modules()):  # finite differences need nets without kinks
        for child, kind in module.named_children():
            if isinstance(kind, nn.ReLU):
                setattr(module, child, nn.Tanh())
    agrees(learner, learner.prepare(points, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", AMORTISED)
def test_meta_gradient_of_a_classification(
    name: str, smooth: Callable[[str], nn.Module], batch: Task, agrees: Callable[..., None]
) -> None:
    options = {"transformer": {"hidden": 8, "heads": 2, "depth": 2}, "anp": {"hidden": 8, "heads": 2}}
    settings = options.get(name, {"hidden": 8})
    learner = moved(build(name, smooth("support"), way=3, classes=8, settings=settings))
    for module in list(learner.modules()):
        for child, kind in module.named_children():
            if isinstance(kind, nn.ReLU):
                setattr(module, child, nn.Tanh())
    agrees(learner, learner.prepare(batch, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", AMORTISED)
def test_neither_order_nor_other_queries_matter(name: str, make: Make, batch: Task) -> None:
    """With every weight moved, so that no part of the net is idle."""
    learner, task = moved(make(name, "layer")), next(batch.unbatch())
    order = torch.randperm(len(task.support.x))
    predictor = learner.adapt(task.support)
    again = learner.adapt(task.support.x[order], task.support.y[order])
    wanted = predictor(task.query.x)
    torch.testing.assert_close(again(task.query.x), wanted)
    torch.testing.assert_close(torch.cat([predictor(x[None]) for x in task.query.x]), wanted)


@pytest.mark.parametrize("name", REGRESSORS)
def test_neither_order_nor_other_points_matter(name: str, points: Task) -> None:
    learner, task = moved(REGRESSORS[name](mlp(1))), next(points.unbatch())
    order = torch.randperm(len(task.support.x))
    predictor = learner.adapt(task.support)
    again = learner.adapt(task.support.x[order], task.support.y[order])
    wanted = predictor(task.query.x)
    torch.testing.assert_close(again(task.query.x), wanted)
    torch.testing.assert_close(torch.cat([predictor(x[None]) for x in task.query.x]), wanted)


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_learns_and_comes_back_from_its_run(name: str, tmp_path: Path) -> None:
    """Lines are told by their points: far better than knowing nothing, and the same from the folder."""
    learner = REGRESSORS[name](mlp(1)).float()
    source, unseen = Lines(shot=10, low=-1, high=1), Lines(shot=10, query=50, seed=1, low=-1, high=1)
    run = tmp_path / "run"
    history = meta_train(
        learner, source, validation=unseen, iterations=150, outer_lr=1e-2, validation_tasks=40, run=run
    )
    best = max(record["val_log_likelihood"] for record in history.records)
    # Slope and height within ±3 spread a line by √(3 + 3/3) = 2: −½ log(2πe 4) nats for who knows nothing.
    assert best > -0.5 * math.log(2 * math.pi * math.e * 4) + 0.5
    task = source.task(3)
    wanted = learner.adapt(task.support)(task.query.x)
    other = REGRESSORS[name](mlp(1)).float()
    other.load_state_dict(RunFolder.open(run).load("best.safetensors")[0])
    assert torch.equal(other.adapt(task.support)(task.query.x), wanted)


@pytest.mark.parametrize("name", AMORTISED)
def test_a_net_without_units_is_refused(name: str, make: Make) -> None:
    with pytest.raises(UserError, match="hidden must be at least 1, not 0"):
        make(name, hidden=0)


# -- each by its formulas -------------------------------------------------------------------------------


def test_cnp_by_hand(points: Task) -> None:
    learner, task = moved(REGRESSORS["cnp"](mlp(1))), next(points.unbatch())
    (x, y), q = (task.support.x, task.support.y), task.query.x
    g = learner.decoder

    def place(x: Tensor) -> Tensor:
        linear, norm = learner.place
        p = linear(learner.body(x[None]))[0]
        return (p - p.mean()) / (p.var(correction=0) + norm.eps).sqrt() * norm.weight + norm.bias

    def h(x: Tensor, y: Tensor) -> Tensor:
        pair = place(x) + learner.label.weight @ y + learner.label.bias
        return pair + learner.encoder(pair[None])[0]

    r = sum(h(a, b) for a, b in zip(x, y, strict=True)) / len(x)
    wanted = []
    for point in q:
        p = place(point)
        mean, raw = g(torch.cat([p, p * r, r])[None])[0]
        wanted.append(torch.stack([mean, (0.01 + 0.99 * (1 + raw.exp()).log()).log()]))
    close(learner.adapt(task.support)(q), torch.stack(wanted).detach(), "answers")


def test_cnp_takes_the_mean_within_each_class(make: Make, batch: Task) -> None:
    learner, task = moved(make("cnp", "layer", way=4, hidden=6)), next(batch.unbatch())
    z, q = learner.body(task.support.x), learner.body(task.query.x)
    means = []
    for n in range(3):
        pairs = learner.place(z[task.support.y == n]) + learner.label(torch.eye(4)[[n, n]])
        means.append((pairs + learner.encoder(pairs)).mean(0))
    means.append(torch.zeros(6))  # the fourth class has no example
    p = learner.place(q)
    wanted = learner.decoder(
        torch.cat([p, *(p * mean for mean in means), torch.cat(means).expand(len(q), -1)], 1)
    )
    wanted = wanted[:, :3]
    close(learner.adapt(task.support)(task.query.x), wanted.detach(), "logits")


def test_anp_by_its_formulas(points: Task) -> None:
    """The bound: the likelihood given u, less the divergence of torch's own normal distributions."""
    learner = moved(REGRESSORS["anp"](mlp(1)))
    task = next(learner.prepare(points, torch.Generator().manual_seed(3)).unbatch())
    x, y, q, target = task.support.x, task.support.y, task.query.x, task.query.y
    f = learner.body

    def latent(x: Tensor, y: Tensor) -> torch.distributions.Normal:
        s = learner.latent_encoder(f(x), y).mean(0)
        mean, raw = learner.latent_head(s).split(6)
        return torch.distributions.Normal(mean, 0.1 + 0.9 * torch.sigmoid(raw))

    def answer(u: Tensor) -> Tensor:
        r = learner.attention(learner.place(f(q)), learner.place(f(x)), learner.encoder(f(x), y))
        mean, raw = learner.decoder(torch.cat([f(q), r, u.repeat(len(q), 1)], 1)).split(1, 1)
        return torch.distributions.Normal(mean, 0.01 + 0.99 * torch.log1p(raw.exp()))

    prior, posterior = latent(x, y), latent(torch.cat([x, q]), torch.cat([y, target]))
    u = posterior.mean + posterior.stddev * task.extra["noise"]
    kl = torch.distributions.kl_divergence(posterior, prior).sum()
    close(learner(task).loss, -answer(u).log_prob(target).mean() + kl / 5, "the outer loss")
    mean, std = learner.adapt(task.support).gaussian(q)
    close(mean, answer(prior.mean).mean.detach(), "in use u is the mean")
    close(std, answer(prior.mean).stddev.detach(), "in use u is the mean")


def test_each_task_has_noise_of_its_own(points: Task) -> None:
    learner = REGRESSORS["anp"](mlp(1))
    noise = [learner.prepare(points, torch.Generator().manual_seed(s)).extra["noise"] for s in (0, 0, 1)]
    assert noise[0].shape == (3, 6)
    assert torch.equal(noise[0], noise[1])
    assert len(torch.cat([noise[0], noise[2]]).unique()) == 36


def test_a_hypernetwork_by_hand(make: Make, batch: Task) -> None:
    learner, task = moved(make("hypernet", "layer")), next(batch.unbatch())
    z, q = learner.body(task.support.x), learner.body(task.query.x)
    logits = []
    for n in range(3):
        c = z[task.support.y == n].mean(0)
        among = torch.stack([z[task.support.y == m].mean(0) for m in range(3)]).mean(0)
        made = learner.generator(torch.cat([c, among])[None])[0]
        logits.append(q @ (2 * c + made[:-1]) + made[-1] - c.square().sum())
    close(learner.adapt(task.support)(task.query.x), torch.stack(logits, 1).detach(), "logits")


@pytest.mark.parametrize("name", ["hypernet", "film"])
def test_what_begins_as_prototypes(name: str, make: Make, batch: Task) -> None:
    learner, task = make(name), next(batch.unbatch())
    wanted = ProtoNet(learner.body).adapt(task.support).probabilities(task.query.x)
    close(learner.adapt(task.support).probabilities(task.query.x), wanted, "probabilities")
    assert (moved(learner).adapt(task.support).probabilities(task.query.x) - wanted).abs().max() > 1e-3


def test_film_modulates_every_layer() -> None:
    """A body of two linear layers, its scales and shifts by hand."""
    body = mlp(3, (5, 4))
    learner = moved(FiLM(body, hidden=6))
    x, y, q = torch.randn(6, 3), torch.arange(6) % 2, torch.randn(4, 3)
    film = learner.generator(body(x).mean(0)[None])[0]
    (g1, g2), (b1, b2) = (part.split([5, 4]) for part in film.split(9))

    def embed(x: Tensor) -> Tensor:
        h = torch.relu((1 + g1) * body[1](x) + b1)
        return torch.relu((1 + g2) * body[3](h) + b2)

    c = torch.stack([embed(x[y == n]).mean(0) for n in range(2)])
    wanted = -torch.cdist(embed(q), c).square()
    close(learner.adapt(x, y)(q), wanted.detach(), "logits")


def test_films_set_encoder_is_normalised_by_its_own_set(batch: Task) -> None:
    """Whatever the running averages are, by which the rest is normalised."""
    learner = moved(FiLM(conv4(4, size=16, blocks=2, norm="running"))).eval()
    task = next(batch.unbatch())
    before = learner.body_weights(task.support)
    for name, buffer in learner.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.add_(0.5)
    after = learner.body_weights(task.support)
    assert before.keys() == after.keys()
    for name in before:
        close(after[name], before[name], name)


@pytest.mark.parametrize("kind", [HyperNet, FiLM])
def test_who_writes_classifiers_needs_classes(kind: type[Learner]) -> None:
    with pytest.raises(DataError, match="needs class labels"):
        kind(mlp(2)).adapt(torch.rand(4, 2), torch.rand(4))


def test_a_transformer_reads_one_sequence(batch: Task) -> None:
    """The same by torch's own transformer over all tokens, a mask saying who sees whom."""
    learner = moved(InContext(mlp(256), max_way=4, hidden=8, depth=3, heads=2))
    task = next(batch.unbatch())
    n, q = len(task.support.x), len(task.query.x)
    labels = torch.zeros(n + q, 5)
    labels[torch.arange(n), task.support.y] = 1
    labels[n:, 4] = 1
    z = learner.body(torch.cat([task.support.x, task.query.x]))
    h = learner.token(torch.cat([z, labels], 1))
    hidden = torch.ones(n + q, n + q, dtype=torch.bool)  # True: not seen
    hidden[:, :n] = False
    hidden.fill_diagonal_(False)
    for block in learner.blocks:
        theirs = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
        a = block.attention
        weights = torch.cat([a.query.weight, a.key.weight, a.value.weight])
        theirs.self_attn.in_proj_weight.data = weights.detach()
        theirs.self_attn.in_proj_bias.data.zero_()
        theirs.self_attn.out_proj.load_state_dict(a.out.state_dict())
        theirs.norm1.load_state_dict(block.norm.state_dict())
        norm, first, _, second = block.units
        theirs.norm2.load_state_dict(norm.state_dict())
        theirs.linear1.load_state_dict(first.state_dict())
        theirs.linear2.load_state_dict(second.state_dict())
        h = theirs(h[None], src_mask=hidden)[0]
    close(learner.adapt(task.support)(task.query.x), learner.head(h)[n:, :3].detach(), "logits")


def test_labels_are_dealt_anew_for_each_task(batch: Task) -> None:
    learner = InContext(mlp(256), max_way=7)
    prepared = learner.prepare(batch, torch.Generator().manual_seed(0))
    assert prepared.support.way == 7
    dealt = []
    for t in range(3):
        before = torch.cat([batch.support.y[t], batch.query.y[t]])
        after = torch.cat([prepared.support.y[t], prepared.query.y[t]])
        pairs = {(int(a), int(b)) for a, b in zip(before, after, strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 3
        dealt.append(sorted(pairs))
    assert dealt[0] != dealt[1]
    used = torch.cat([learner.prepare(batch, torch.Generator().manual_seed(s)).support.y for s in range(30)])
    assert used.unique().tolist() == list(range(7))
    with pytest.raises(TaskError, match="answers at most 2 ways, not 3"):
        InContext(mlp(256), max_way=2).prepare(batch, torch.Generator())


def test_heads_must_share_a_token() -> None:
    with pytest.raises(UserError, match="3 heads cannot share 64 numbers"):
        InContext(mlp(2), heads=3)
    with pytest.raises(UserError, match="5 heads cannot share 128 numbers"):
        ANP(mlp(2), way=2, heads=5)

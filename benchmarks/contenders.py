"""One contender of `meta_step.py` in a process of its own: meta-steps on request, timed.

    python contenders.py NAME NET MODE DEVICE THREADS SETTING.npz

`meta_step.py` starts it, with the number of threads in its environment. NAME is quickstudy, bf16 (the same by
autocast), compiled (the same by torch.compile), plain, higher, torchopt or jax; NET is standard or ours; MODE
is second (order), first or evaluate; DEVICE is cpu or cuda. Each line read from standard input is answered by
one timed meta-step in JSON; the line `check FILE` by keeping what it computed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

NAME, NET, MODE, DEVICE, THREADS, SETTING = sys.argv[1:]
LR, STEPS = 0.01, 5
given = np.load(SETTING)
weights = [given[f"w{i}"] for i in range(sum(k.startswith("w") for k in given.files))]
xs, ys, xq, yq = (given[k] for k in ("xs", "ys", "xq", "yq"))
way, channels, tasks = len(weights[-1]), len(weights[0]), len(xs)
DOUBLE = xs.dtype == np.float64  # as the setting is, so all is computed
Step = Callable[[], list[Any]]


def standard_net() -> Any:
    from torch import nn

    def block(inputs: int) -> Any:
        norm = nn.BatchNorm2d(channels, track_running_stats=False)
        return nn.Sequential(nn.Conv2d(inputs, channels, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2))

    return nn.Sequential(block(1), *(block(channels) for _ in range(3)), nn.Flatten())


def our_net() -> Any:
    from quickstudy.nets import conv4

    return conv4(channels, norm="batch")


def torch_net() -> Any:
    import torch
    from torch import nn

    torch.set_default_dtype(torch.float64 if DOUBLE else torch.float32)
    net = nn.Sequential(standard_net() if NET == "standard" else our_net(), nn.Linear(channels, way))
    load(net)
    torch.set_num_threads(int(THREADS))
    return net.to(DEVICE)


def load(net: Any) -> None:
    import torch

    with torch.no_grad():
        for p, w in zip(net.parameters(), weights, strict=True):
            p.copy_(torch.from_numpy(w))


def tensors() -> list[Any]:
    import torch

    return [torch.from_numpy(v).to(DEVICE) for v in (xs, ys, xq, yq)]


def answer(net: Any, outputs: list[Any]) -> list[Any]:
    """What is compared: the meta-gradient; in evaluation the outputs."""
    return outputs if MODE == "evaluate" else [p.grad for p in net.parameters()]


def plain() -> Step:
    """A loop over tasks, as one writes it."""
    import torch
    import torch.nn.functional as F
    from torch.func import functional_call

    net, (sx, sy, qx, qy) = torch_net(), tensors()

    def step() -> list[Any]:
        net.zero_grad()
        outputs = []
        for t in range(tasks):
            params = dict(net.named_parameters())
            for _ in range(STEPS):
                loss = F.cross_entropy(functional_call(net, params, (sx[t],)), sy[t])
                grads = torch.autograd.grad(loss, list(params.values()), create_graph=MODE == "second")
                params = {k: p - LR * g for (k, p), g in zip(params.items(), grads, strict=True)}
                if MODE == "evaluate":
                    params = {k: p.detach().requires_grad_() for k, p in params.items()}
            if MODE == "evaluate":
                with torch.no_grad():
                    outputs.append(functional_call(net, params, (qx[t],)))
            else:
                (F.cross_entropy(functional_call(net, params, (qx[t],)), qy[t]) / tasks).backward()
        return answer(net, outputs)

    return step


def higher() -> Step:
    """facebookresearch/higher, as in its examples."""
    import higher
    import torch
    import torch.nn.functional as F

    net, (sx, sy, qx, qy) = torch_net(), tensors()
    inner = torch.optim.SGD(net.parameters(), lr=LR)

    def step() -> list[Any]:
        net.zero_grad()
        outputs = []
        for t in range(tasks):
            second = MODE == "second"
            with higher.innerloop_ctx(
                net, inner, copy_initial_weights=MODE == "evaluate", track_higher_grads=second
            ) as (fast, rule):
                for _ in range(STEPS):
                    rule.step(F.cross_entropy(fast(sx[t]), sy[t]))
                if MODE == "evaluate":
                    with torch.no_grad():
                        outputs.append(fast(qx[t]))
                    continue
                loss = F.cross_entropy(fast(qx[t]), qy[t]) / tasks
                if second:
                    loss.backward()
                    continue
                grads = torch.autograd.grad(loss, list(fast.parameters()))
                for p, g in zip(net.parameters(), grads, strict=True):
                    p.grad = g if p.grad is None else p.grad + g
        return answer(net, outputs)

    return step


def torchopt() -> Step:
    """metaopt/torchopt, as in its MAML example."""
    import torch
    import torch.nn.functional as F
    import torchopt

    if MODE == "first":
        raise SystemExit("torchopt's MetaSGD has no first-order mode")
    net, (sx, sy, qx, qy) = torch_net(), tensors()
    inner = torchopt.MetaSGD(net, lr=LR)
    first = torchopt.extract_state_dict(net, by="reference", detach_buffers=True)
    rule = torchopt.extract_state_dict(inner, by="reference")
    start = list(net.parameters())

    def step() -> list[Any]:
        for p in start:
            p.grad = None
        outputs = []
        for t in range(tasks):
            for _ in range(STEPS):
                inner.step(F.cross_entropy(net(sx[t]), sy[t]))
                if MODE == "evaluate":
                    torchopt.stop_gradient(net)
            if MODE == "evaluate":
                with torch.no_grad():
                    outputs.append(net(qx[t]))
            else:
                (F.cross_entropy(net(qx[t]), qy[t]) / tasks).backward()
            torchopt.recover_state_dict(net, first)
            torchopt.recover_state_dict(inner, rule)
        return outputs if MODE == "evaluate" else [p.grad for p in start]

    return step


def jax() -> Step:
    """jit and vmap; a convolution is a matrix product of patches, for XLA's own is very slow under vmap."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", DOUBLE)

    def conv(x: Any, w: Any, b: Any) -> Any:
        n, c, h, v = x.shape
        p = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = jnp.stack([p[:, :, i : i + h, j : j + v] for i in range(3) for j in range(3)], 2)
        patches = patches.reshape(n, c * 9, h * v)
        return (
            jnp.einsum("ok,nkp->nop", w.reshape(len(w), -1), patches).reshape(n, len(w), h, v)
            + b[:, None, None]
        )

    def pooled(y: Any) -> Any:
        y = y[:, :, : y.shape[2] // 2 * 2, : y.shape[3] // 2 * 2]
        n, c, h, v = y.shape
        return y.reshape(n, c, h // 2, 2, v // 2, 2).max((3, 5))

    def net(ws: Any, x: Any) -> Any:
        for w, b, scale, shift in (ws[4 * i : 4 * i + 4] for i in range(4)):
            sign = jax.lax.stop_gradient(jnp.where(scale < 0, -1.0, 1.0).astype(w.dtype))
            pooled_first = NET == "ours"
            y = conv(x, w * sign[:, None, None, None], b * sign) if pooled_first else conv(x, w, b)
            mean, var = y.mean((0, 2, 3), keepdims=True), y.var((0, 2, 3), keepdims=True)
            k = (scale * sign if pooled_first else scale)[:, None, None] * jax.lax.rsqrt(var + 1e-5)
            if pooled_first:
                x = jnp.maximum(pooled(y) * k + shift[:, None, None] - mean * k, 0)
            else:
                x = pooled(jnp.maximum((y - mean) * k + shift[:, None, None], 0))
        return x.reshape(len(x), -1) @ ws[-2].T + ws[-1]

    def loss(ws: Any, x: Any, y: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(net(ws, x)), y[:, None], 1).mean()

    def adapted(ws: Any, x: Any, y: Any) -> Any:
        for _ in range(STEPS):
            grads = jax.grad(loss)(ws, x, y)
            if MODE == "first":
                grads = jax.lax.stop_gradient(grads)
            ws = [w - LR * g for w, g in zip(ws, grads, strict=True)]
        return ws

    def one(ws: Any, sx: Any, sy: Any, qx: Any, qy: Any) -> Any:
        ws = adapted(ws, sx, sy)
        return net(ws, qx) if MODE == "evaluate" else loss(ws, qx, qy)

    every = jax.vmap(one, (None, 0, 0, 0, 0))
    whole = jax.jit(every if MODE == "evaluate" else jax.grad(lambda *a: every(*a).mean()))
    arrays = [jnp.asarray(v) for v in (xs, ys, xq, yq)]
    ws = [jnp.asarray(w) for w in weights]

    def step() -> list[Any]:
        return jax.block_until_ready(list(whole(ws, *arrays)))

    return step


def quickstudy(strategy: Any = "auto") -> Step:
    """This library: the strategy it chooses by itself, or another."""
    import torch

    from quickstudy.inner import estimate, map_tasks
    from quickstudy.inner.allocator import keep_freed_memory
    from quickstudy.learners import FOMAML, MAML
    from quickstudy.nets import convert_batch_norm, native
    from quickstudy.tasks import Query, Support, Task

    keep_freed_memory()
    torch.set_num_threads(int(THREADS))
    torch.set_default_dtype(torch.float64 if DOUBLE else torch.float32)
    body = our_net() if NET == "ours" else convert_batch_norm(standard_net())
    body.features, body.norm = channels, "batch"
    learner = (FOMAML if MODE == "first" else MAML)(body, way=way, inner_lr=LR, steps=STEPS)
    load(learner.net)
    learner.to(DEVICE)
    native.build(dtype=torch.get_default_dtype())
    sx, sy, qx, qy = tensors()
    batch = Task(Support(sx, sy, way), Query(qx, qy))

    def outputs(own: Any, task: Task) -> dict[str, Any]:
        return {"z": own.judge(task).outputs}

    def step() -> list[Any]:
        if MODE == "evaluate":
            with torch.no_grad(), learner.in_use():
                return [map_tasks(outputs, learner, batch, strategy)["z"]]
        return list(estimate(learner.train(), batch, strategy)[1].values())

    return step


def compiled() -> Step:
    """This library as in a long run: its meta-step compiled."""
    return quickstudy("compile")


def bf16() -> Step:
    """This library, its net in bf16."""
    from quickstudy.inner import computing_in

    step = quickstudy()

    def lowered() -> list[Any]:
        with computing_in("bf16"):
            return step()

    return lowered


def done() -> None:
    """Wait for the GPU; JAX's step does so itself."""
    if DEVICE == "cuda" and NAME != "jax":
        import torch

        torch.cuda.synchronize()


def main() -> None:
    step = globals()[NAME]()
    done()
    for line in sys.stdin:
        began = time.perf_counter()
        found = step()
        done()
        seconds = time.perf_counter() - began
        if line.startswith("check"):
            arrays = [np.asarray(v.detach().cpu() if hasattr(v, "detach") else v) for v in found]
            if MODE == "evaluate" and len(arrays) > 1:
                arrays = [np.stack(arrays)]
            np.savez(line.split()[1], *arrays)
        print(json.dumps({"seconds": seconds}), flush=True)


main()

"""The tables of what the inner loop takes: speed, memory, processes, precision."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
"""One row of a result, or a whole file."""
Marks = tuple[str, str]
"""What stands before and after a table in its page."""


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def read(name: str) -> Row:
    """A file of results/; nothing where it was never made."""
    path = ROOT / "results" / f"{name}.json"
    found: Row = json.loads(path.read_text()) if path.exists() else {}
    return found


def speed() -> str:
    """The meta-steps of `meta_step.json`: how many times as fast as the fastest peer."""
    tables = read("meta_step")["tables"]
    settings = list(dict.fromkeys(setting for one in tables.values() for setting in one["rows"]))
    lines = [
        f"| how many times as fast as the fastest peer | {' | '.join(settings)} | geometric mean |",
        "|---|" + "---|" * (len(settings) + 1),
    ]
    words = {
        "standard": "peer with the standard net",
        "given": "peer given our net",
        "user": "both with the standard net",
    }
    for title, one in tables.items():
        rows = one["rows"]
        for kind, said in words.items():
            cells = [f"{rows[s]['ratios'][kind]:.2f}" if s in rows else "" for s in settings]
            lines.append(f"| {title}: {said} | {' | '.join(cells)} | {one['geometric means'][kind]:.2f} |")
        ours = {s: row["best"]["quickstudy, ours net"]["seconds"] / row["floor"] for s, row in rows.items()}
        cells = [f"{ours[s]:.1f}" if s in ours else "" for s in settings]
        lines.append(f"| {title}: ours over the arithmetic alone, at the peak | {' | '.join(cells)} | |")
    return "\n".join(lines)


def memory() -> str:
    """Peaks and seconds of `memory.json`, a row a method, a column a number of inner steps."""
    kept = read("memory")
    cells = {(r["method"], r["steps"]): f"{r['MB']:.0f} MB, {r['seconds']:.2f} s" for r in kept["rows"]}
    methods, steps = dict.fromkeys(m for m, _ in cells), sorted({n for _, n in cells})
    lines = [f"| inner steps | {' | '.join(f'{n:,}' for n in steps)} |", "|---|" + "---|" * len(steps)]
    lines += [f"| {m} | {' | '.join(cells.get((m, n), '') for n in steps)} |" for m in methods]
    price = kept["time at 5 steps, ms"]
    seconds = {(r["method"], r["steps"]): r["seconds"] for r in kept["rows"]}
    far = seconds["flat", 100] / seconds["unrolled", 100]
    said = (
        f"{flat_memory(kept)}\nAt 5 steps, whose graphs fit the budget, it takes "
        f"{price['flat / unrolled']:.2f} times as long as unrolling\n"
        f"({price['flat, two graphs / unrolled']:.2f} with two graphs kept); "
        f"at 100, {far:.2f} times."
    )
    return "\n".join([*lines, "", said])


def flat_memory(kept: Row) -> str:
    """What more inner steps take in flat memory."""
    more = {(r["method"], r["steps"]): r["more"] for r in kept["rows"]}
    mapped = [
        f"; of eight tasks by vmap {v:.0f} MB" for (m, n), v in more.items() if "vmap" in m and n == 100
    ]
    return (
        f"Flat memory of a task takes {more['flat', 100]:.0f} MB more for 100 inner steps than for 5 "
        f"({more['flat', 1000]:.0f} MB for 1,000; unrolled\n{more['unrolled', 100]:.0f} MB for 100)"
        f"{''.join(mapped)}."
    )


def scaling() -> str:
    """`scaling.json`: two processes beside one, and what the model predicts."""
    kept = read("scaling")
    lines = [
        "| delay | meta-steps a second, two processes | ratio (middle half of rounds) | predicted | error |",
        "|---|---|---|---|---|",
    ]
    for r in kept["two_processes"]:
        low, high = r["ratio_of_the_rounds_middle_half"]
        lines.append(
            f"| {1000 * r['delay_seconds']:.0f} ms | {r['meta_steps_per_second']:.3f} | {r['ratio']:.2f} "
            f"({low:.2f} to {high:.2f}) | {r['predicted']:.2f} | {100 * r['error']:+.1f} % |"
        )
    one, reduce = kept["one_process"], kept["all_reduce"]
    said = (
        f"{kept['rounds']} rounds; {one['meta_steps_per_second']:.3f} meta-steps a second in one process "
        f"([results/scaling.json](../results/scaling.json)).\n"
        f"Measured for the model: τ = {1000 * one['seconds_a_task']:.1f} ms, "
        f"s = {1000 * one['seconds_besides']:.0f} ms, c(2) = {kept['contention']:.3f}, "
        f"α = {1e6 * reduce['latency_seconds']:.0f} µs, β = {reduce['bytes_per_second'] / 1e9:.2f} GB/s, "
        f"n = {reduce['numbers']:,}."
    )
    return "\n".join([*lines, "", said])


def precision() -> str:
    """`precision.json`: runs trained in bf16 beside those in float32."""
    lines = [
        "| learner | seed | trained in float32 | trained in bf16 | difference on the same tasks |",
        "|---|---|---|---|---|",
    ]
    for r in read("precision")["rows"]:
        whole, half, less = (
            r[f"trained in {name}"]
            for name in (
                "float32, measured in float32",
                "bf16, measured in float32",
                "bf16 less trained in float32",
            )
        )
        both = (f"{100 * v['mean']:.1f} ± {percent(v['ci95'])}" for v in (whole, half))
        difference = f"{100 * less['mean']:+.1f} ± {percent(less['ci95'])}"
        lines.append(f"| `{r['learner']}` | {r['seed']} | {' | '.join(both)} | {difference} |")
    return "\n".join(lines)


def engine() -> str:
    """What the engine costs besides the meta-step, a line each."""
    kept = read("memory")
    seconds = {(r["method"], r["steps"]): r["seconds"] for r in kept["rows"]}
    further = [seconds["flat", n] / seconds["unrolled", n] for n in (10, 20, 50, 100)]
    price = kept["time at 5 steps, ms"]
    cases = read("strategies")["cases"]
    measured = [(name, what, one) for name, case in cases.items() for what, one in case.items()]
    compiling = [one["compiling"] for _, _, one in measured if "compiling" in one]
    worst = max(measured, key=lambda one: float(one[2]["loses"]))
    most = worst[2]["loses"]
    lost = f"loses at most {percent(most)} % to the best of the strategies ({worst[0]}, {worst[1]})"
    kinds = "; ".join(dict.fromkeys(what for _, what, _ in measured))
    spent = f"{min(compiling):.0f} to {max(compiling):.0f} seconds" if compiling else "a time not measured"
    two = read("scaling")["two_processes"][0]
    halves = [100 * r["trained in bf16 less trained in float32"]["mean"] for r in read("precision")["rows"]]
    ahead = {r["shot"]: r["adapters_ahead"] for r in reversed(read("lora_strokes")["rows"][:-1])}
    gains = [
        f"{percent(v['accuracy'])} ± {percent(v['ci95'])} points at {k} shot{'s' * (k > 1)}"
        for k, v in sorted(ahead.items())
    ]
    lines = [
        f"{flat_memory(kept)} It takes {price['flat / unrolled']:.2f} times as long as unrolling at 5 steps, "
        f"whose graphs it keeps ({price['flat, two graphs / unrolled']:.2f} if it keeps two), and "
        f"{min(further):.1f} to {max(further):.1f} times at 10 to 100. "
        "[Which way back, and curves](docs/meta_gradients.md).",
        f"`--strategy auto` {lost if most else 'was the best of the strategies'}, in {len(cases)} cases it "
        f"was not tuned on ({kinds}); compiling a meta-step took {spent}: `benchmarks/strategies.py`.",
        f"Two processes of one thread take {two['ratio']:.2f} times the meta-steps of one "
        f"({two['predicted']:.2f} by the [cost model](docs/distributed.md)): `benchmarks/scaling.py`.",
        f"Training in bf16 instead of float32 changes accuracy by {min(halves):+.1f} to {max(halves):+.1f} "
        f"points in {len(halves)} short runs: `benchmarks/precision.py`.",
        f"Low-rank adapters in a frozen transformer over pen strokes are ahead of its best floor "
        f"without them by {' and '.join(gains)}: `examples/lora_strokes.py`.",
    ]
    return "\n".join("- " + "\n  ".join(textwrap.wrap(" ".join(line.split()), 116)) for line in lines)


def serving() -> str:
    """What `serve.json` has of the server's times, loads and memory."""
    lines = ["| | | aim |", "|---|---|---|"]
    rows = read("serve").get("results", [])
    [echo] = [r["per_second"] for r in rows if r["what"] == "echo"] or [0.0]
    for r in rows:
        name = r.get("learner")
        if r["what"] == "latency":
            parts = f"{1e3 * r['adapt']:.0f} ms to adapt, {1e3 * r['predict']:.0f} to predict"
            told = f"{1e3 * r['both']:.0f} ms: {parts} | below {1e3 * r['target']:.0f} ms"
            lines.append(f"| {name}: 25 examples of 5 classes, then 5 pictures, median | {told} |")
        if r["what"] == "load":
            waits = f"half within {1e3 * r['median']:.0f} ms, 99 % within {1e3 * r['p99']:.0f}"
            told = f"{r['per_second']:.0f}, {waits}"
            share = f"{100 * r['of_echo']:.0f} % of a bare FastAPI echo's {echo:,.0f}"
            lines.append(f"| {name}: predictions a second | {told}: {share} | {r['target']} |")
        if r["what"] == "memory":
            grown = f"{r['after_mb']:.0f} MB, {r['grown_mb']:+.1f} MB"
            lines.append(f"| memory after {r['requests']:,} more predictions | {grown} | flat |")
    return "\n".join(lines) if rows else ""

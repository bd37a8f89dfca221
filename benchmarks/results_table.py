"""The tables of README.md and docs/, from the files under results/.

python benchmarks/results_table.py            print those of the README
python benchmarks/results_table.py --write    put all into their pages
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from engine_tables import Marks, Row, engine, memory, percent, precision, read, scaling, serving, speed

from quickstudy.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PARTS = (
    "learners",
    "variants",
    "generalisation",
    "real-use",
    "regression",
    "presentations",
    "semi-supervised",
    "rates",
    "ntm-copy",
)
"""Recipes with a row for each learner, each a table of its own in docs/which_learner.md."""


def measured(r: Row) -> str:
    """What one accuracy was measured on: tasks, normalisation, settings that were searched."""
    parts = [f"{r['way']}-way {r['shot']}-shot"]
    if r["query"] == 1:
        parts.append("1 query a class")
    parts.append(f"{r['statistics']} statistics" + ", transductive" * r["transductive"])
    chosen = [f"{name.replace('_', ' ')} {value:g}" for name, value in r.get("chosen", {}).items()]
    return ", ".join(parts) + (f" ({' and '.join(chosen)} by meta-validation)" if chosen else "")


def rows_of(result: Row, file: str) -> list[list[str]]:
    """The table rows of one result file: what was measured, result, aim, published, minutes of training."""
    rows: list[list[str]] = []
    results = result.get("results", [result])
    seeds = len(result.get("seeds", [0]))
    count = len(results) // seeds  # measurements of each seed, one seed after the other
    for same in (results[i::count] for i in range(count)):
        r = same[0]
        known = f"{r['paper']} %" if r.get("paper") else ""
        if "mse" in r:
            what = f"{r['learner']}, after {r['steps']} steps"
            ours = f"{r['mse']:.3f} ± {r['ci95']:.3f} mean squared error"
            goal = f"below {r['target']}" if r.get("target") else ""
        elif "draws" in r:
            what, goal = f"{r['draws']} draws, `predict`", f"above {100 * r['target']:.0f} %"
            ours = f"{percent(r['accuracy'])} ± {percent(r['ci95'])} %"
        else:
            what, goal = measured(r), f"{r['target']} %" if r.get("target") else ""
            ours = f"{percent(r['accuracy'], 2)} ± {percent(r['ci95'], 2)} %"
            if seeds > 1:
                each = ", ".join(f"{percent(s['accuracy'], 2)} ± {percent(s['ci95'], 2)}" for s in same)
                mean = sum(s["accuracy"] for s in same) / seeds
                ours = f"{percent(mean, 2)} %, the mean of {seeds} seeds ({each})"
        rows.append(["", what, ours, goal, known, ""])
    minutes = result.get("training_seconds", 0) / 60
    rows[0][0] = f"[{result['title']}](results/{file})"
    rows[0][5] = f"{minutes:.0f} min" if minutes else ""
    floors = result.get("floors") or []
    if floors:
        text = ", ".join(f"{f['name']} {percent(f['accuracy'])} ± {percent(f['ci95'])}" for f in floors)
        first = floors[0]
        what = f"floors, first {first['tasks']} of the {first['way']}-way {first['shot']}-shot tasks"
        rows.append(["", what, f"{text} %", "", "", ""])
    return rows


def table() -> str:
    """All results as one Markdown table."""
    lines = [
        "| experiment | measured on | result | aim | published | training |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted((ROOT / "results").glob("*.json")):
        result = json.loads(path.read_text())
        if "recipe" in result and result["recipe"] not in PARTS:
            lines += ["| " + " | ".join(row) + " |" for row in rows_of(result, path.name)]
    return "\n".join(lines)


def parts(name: str) -> list[Row]:
    """The rows of a recipe of many parts; none where it was never run."""
    return read(name).get("results", [])


def accuracy(row: Row) -> str:
    """Percent with its interval; a dash where a learner cannot."""
    return "–" if row["accuracy"] is None else f"{percent(row['accuracy'])} ± {percent(row['ci95'])}"


def grid(
    rows: Iterable[Row],
    column: Callable[[Row], str],
    *,
    line: Callable[[Row], str] = lambda row: f"`{row['learner']}`",
    head: tuple[str, ...] = ("learner",),
    beside: Callable[[Row], list[str]] = lambda row: [],
    text: Callable[[Row], str] = accuracy,
) -> str:
    """A table: each row's text by its line and its column.

    Args:
        head: names of the line and of what stands beside it, before the columns.
        beside: what is said of a line, by the first of its rows.
    """
    found: dict[str, dict[str, str]] = {}
    about: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(line(row), {})[column(row)] = text(row)
        about.setdefault(line(row), beside(row))
    columns = list(dict.fromkeys(c for cells in found.values() for c in cells))
    if not columns:
        return ""
    lines = [[*head, *columns], ["---"] * len([*head, *columns])]
    lines += [[name, *about[name], *(cells.get(c, "") for c in columns)] for name, cells in found.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def problem(row: Row) -> str:
    """On which tasks an accuracy was measured."""
    name = f"{row['way']}-way {row['shot']}-shot"
    if row["split"] == "train":
        return f"{name}, classes of meta-training"
    return f"{name}, transductive" if row.get("transductive") else name


def spent(row: Row) -> list[str]:
    """What a learner takes; a simple answer nothing."""
    if "parameters" not in row:
        return [""] * len(TAKES)
    trained = f"{row['iterations']:,}" + ", rising" * row.get("rising", False)
    iterations = trained if row["training_seconds"] else "–"
    memory = f"{row['training_mb']:.0f}" if row.get("training_mb") else ""
    cores = f"{row['core_seconds'] / 60:.0f}" if row.get("core_seconds") and row["iterations"] > 1 else ""
    return [f"{row['parameters']:,}", iterations, cores, memory]


TAKES = ("parameters", "meta-steps", "core-minutes", "MB in training")


def learners(data: str) -> str:
    """One data set's part of `learners.json`."""
    rows = (row for row in parts("learners") if row["part"].partition("/")[0] == data)
    adapting = {row["learner"]: f"{row['adapt_ms']:.0f}" for row in parts("adaptation")}
    return grid(
        rows,
        problem,
        head=("learner", *TAKES, "ms to adapt"),
        beside=lambda row: [*spent(row), adapting[row["learner"]]],
    )


SETS = {"omniglot": "Omniglot", "quickdraw": "Quick, Draw!"}
"""Names of the data of `learners.json`."""


def overview() -> str:
    """All of `learners.json` that is accuracy on unseen classes, in a line a learner."""
    rows = [
        row
        for row in parts("learners")
        if row["split"] == "test" and not row.get("transductive") and row["part"].count("/") == 1
    ]
    known = {data: [r for r in rows if r["part"].startswith(f"{data}/")] for data in SETS}
    return grid(
        [row for same in known.values() for row in same],
        lambda row: f"{SETS[row['part'].partition('/')[0]]} {problem(row)}",
        text=lambda row: percent(row["accuracy"]),
    )


def labelled(name: str, data: str) -> str:
    """`variants.json` or `generalisation.json`: a learner's other choices, after what is usual."""
    others = parts(name)
    learners = dict.fromkeys(row["learner"] for row in others)
    known = [row for row in parts("learners") if row["part"] in {f"{data}/{learner}" for learner in learners}]
    return grid(
        [row for learner in learners for row in (*known, *others) if row["learner"] == learner],
        problem,
        line=lambda row: f"`{row['learner']}`" + f", {row['label'].replace('-', ' ')}" * bool(row["label"]),
        head=("learner", *TAKES),
        beside=spent,
    )


def real_use() -> str:
    """`real-use.json`: tasks unlike those of meta-training."""
    return grid(parts("real-use"), lambda row: row["cell"])


def regression(family: str) -> str:
    """One family's part of `regression.json`."""

    def text(row: Row) -> str:
        error = f"{row['mse']:.3f} ± {row['ci95']:.3f}"
        nats = row.get("log_likelihood")
        return error if nats is None else f"{error}; {nats:.2f} ± {row['log_likelihood_ci95']:.2f} nats"

    rows = (row for row in parts("regression") if row["data"] == family)
    head = ("learner", *TAKES)
    return grid(rows, lambda row: f"{row['shot']} points", head=head, beside=spent, text=text)


def presentations() -> str:
    """`presentations.json`, the paper's numbers beside ours."""
    wanted = (1, 2, 3, 4, 5, 10)
    ours = [row for row in parts("presentations") if row["presentation"] in wanted]
    theirs = [{**row, "body": "paper", "accuracy": row["paper"] / 100, "ci95": None} for row in ours]
    return grid(
        [*ours, *theirs],
        lambda row: f"presentation {row['presentation']}",
        line=lambda row: f"`{row['learner']}`, {row['body']}",
        head=("learner, body",),
        text=lambda row: percent(row["accuracy"]) if row["ci95"] is None else accuracy(row),
    )


def semi_supervised() -> str:
    """`semi-supervised.json`: accuracies, and gains over prototypes of the labelled examples alone."""

    def text(row: Row) -> str:
        gain, theirs = 100 * row["gain_accuracy"], row["paper"] - row["paper_supervised"]
        said = f"{accuracy(row)}, {gain:+.1f} ± {percent(row['gain_ci95'])}"
        return f"{said} (paper {row['paper']}, {theirs:+.1f})"

    return grid(
        parts("semi-supervised"),
        lambda row: f"{row['distractors'] or 'no'} classes of distractors",
        line=lambda row: row["learner"],
        head=("prototypes",),
        text=text,
    )


def rates() -> str:
    """`rates.json`: each learner and factor, the seeds side by side; and what Alpha MAML regains."""
    table = grid(
        parts("rates"),
        lambda row: f"seed {row['train_seed']}",
        line=lambda row: f"`{row['learner']}`, rates × {row['factor']:g}",
        head=("learner",),
    )
    regained = read("rates")["regained"] if table else {}
    told = [f"{100 * share:.0f} % at rates × {factor}" for factor, share in regained.items()]
    return table + (f"\n\nOf what MAML loses Alpha MAML regains {', '.join(told)}." if told else "")


def copying() -> str:
    """`ntm-copy.json`: wrong bits of a sequence, by its length."""
    return grid(
        parts("ntm-copy"),
        lambda row: f"{row['length']} vectors",
        line=lambda row: {"ntm": "neural Turing machine", "lstm": "LSTM"}[row["part"]],
        head=("net",),
        text=lambda row: f"{row['wrong_bits']:.2f} ± {row['ci95']:.2f}",
    )


def which_learner() -> dict[Marks, str]:
    """Those of docs/which_learner.md."""
    tables = {
        **{f"learners {data}": learners(data) for data in ("omniglot", "quickdraw", "quickdraw-plain")},
        "variants": labelled("variants", "omniglot"),
        "generalisation": labelled("generalisation", "quickdraw"),
        "real-use": real_use(),
        **{
            f"regression {name}": regression(name)
            for name in ("sinusoid", "five-modes", "gaussian-process", "completion")
        },
        "presentations": presentations(),
        "semi-supervised": semi_supervised(),
        "rates": rates(),
        "ntm-copy": copying(),
    }
    return {marks(name): text for name, text in tables.items()}


def recipes() -> str:
    """Every recipe: what it shows, what was published, what came out here."""
    lines = ["| recipe | what it shows | published | here |", "|---|---|---|---|"]
    for name, plan in RECIPES.items():
        result = read(name)
        if not result:
            ours = "not run yet"
        elif name in PARTS:
            measured = {row["part"] for row in result["results"]}
            every = getattr(plan, "parts", measured)
            ours = f"{len(measured)} of {len(every)} parts: [tables](which_learner.md)"
        else:
            rows = rows_of(result, f"{name}.json")
            _, what, number, _, known, _ = next((row for row in rows if row[3] or row[4]), rows[0])
            beside = f", published {known}" if known else ""
            ours = f"[{number}](../results/{name}.json) at {what}{beside}"
        lines.append(f"| `{name}` | {plan.title} | {plan.source} | {ours} |")
    return "\n".join(lines)


def marks(name: str) -> Marks:
    """What stands before and after a table."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def between(text: str, begin: str, end: str, new: str) -> str:
    """The text with what stands between two marks replaced."""
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{new}\n{end}{tail}"


def with_tables(page: str, tables: dict[Marks, str]) -> str:
    """The page with the text between each pair of marks replaced."""
    for marks, text in tables.items():
        page = between(page, *marks, text or "(not measured yet)")
    return page


PAGES: dict[str, Callable[[], dict[Marks, str]]] = {
    "README.md": lambda: {
        marks("learners"): overview(),
        marks("results"): table(),
        marks("speed"): speed(),
        marks("engine"): engine(),
    },
    "docs/meta_gradients.md": lambda: {marks("memory"): memory(), marks("precision"): precision()},
    "docs/distributed.md": lambda: {marks("scaling"): scaling()},
    "docs/serving.md": lambda: {marks("serving"): serving()},
    "docs/which_learner.md": which_learner,
    "docs/recipes.md": lambda: {marks("recipes"): recipes()},
}
"""The tables of each page that has some, by the marks that they stand between."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put them into their pages")
    if not parser.parse_args().write:
        print(table(), speed(), engine(), sep="\n\n")
        return
    for name, tables in PAGES.items():
        path = ROOT / name
        path.write_text(with_tables(path.read_text(), tables()))


if __name__ == "__main__":
    main()

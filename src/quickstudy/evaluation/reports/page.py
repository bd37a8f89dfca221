"""The report as one page: tables, pictures within it, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from quickstudy.errors import RunError
from quickstudy.evaluation.evaluate import normalising
from quickstudy.evaluation.fit import fit_picture
from quickstudy.evaluation.paired import paired
from quickstudy.evaluation.plots import confusion_matrix, reliability, task_picture
from quickstudy.evaluation.reports.pictures import curves, heat_map, mean_of, published, six_curves
from quickstudy.evaluation.reports.subject import Subject
from quickstudy.files import write_bytes
from quickstudy.tasks.families import Functions
from quickstudy.version import __version__

PAGE, FOLDER = "report.html", "pictures"
FEW_DRAWINGS = 20
"""Drawings a class of the published curves that are drawn where a run says no number."""


def write_report(subjects: Sequence[Subject], out: Path) -> Path:
    """Write the page and its pictures into a folder.

    Args:
        subjects: the runs.
        out: the folder, made where it is missing.

    Returns:
        The page.

    Raises:
        RunError: the folder cannot be written to.

    Example:
        >>> write_report(subjects(["runs/a", "runs/b"], 200, 50), Path("report"))  # doctest: +SKIP
        PosixPath('report/report.html')
    """
    try:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {out}: {error.strerror or error}") from error
    style = (files("quickstudy") / "evaluation" / "reports" / "page.css").read_text()
    names = ", ".join(s.name for s in subjects)
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{escape(names)}: a quickstudy report</title>\n<style>\n{style}</style>\n</head>",
        "<body>\n<main>",
        f"<h1>{escape(names)}</h1>",
        *together(subjects, out / FOLDER),
        *(part for k, s in enumerate(subjects) for part in alone(s, out / FOLDER, k)),
        *commands(subjects),
        f"</main>\n<footer>quickstudy {escape(__version__)}</footer>\n</body>\n</html>\n",
    ]
    write_bytes(out / PAGE, "\n".join(parts).encode())
    return out / PAGE


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its cells are text."""
    top = "".join(f'<th scope="col">{escape(word)}</th>' for word in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(c)}</td>" for c in row[1:])}</tr>\n'
        for row in rows
    )
    inside = f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody>"
    return f'<div class="wide"><table>{inside}</table></div>'


def picture(path: Path, said: str) -> str:
    """A PNG within the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img src="data:image/png;base64,{data}" alt="{escape(said)}"></figure>'


def percent(accuracy: float | None, ci95: float | None) -> str:
    """An accuracy with its interval.

    >>> percent(0.6789, 0.0123), percent(None, 0.1)
    ('67.9 ± 1.2 %', '–')
    """
    if accuracy is None:
        return "–"
    return f"{100 * accuracy:.1f}" + ("" if ci95 is None else f" ± {100 * ci95:.1f}") + " %"


def squared(loss: float | None, ci95: float | None) -> str:
    """A mean squared error with its interval.

    >>> squared(0.12345, 0.0067), squared(None, None)
    ('0.1235 ± 0.0067', '–')
    """
    if loss is None:
        return "–"
    return f"{loss:.4f}" + ("" if ci95 is None else f" ± {ci95:.4f}")


def together(subjects: Sequence[Subject], folder: Path) -> Iterator[str]:
    """What is of all runs: accuracies with floors, who is better, curves, time and memory."""
    yield from accuracies([s for s in subjects if not s.config.functions])
    yield from squared_errors([s for s in subjects if s.config.functions])
    yield from who_is_better(subjects)
    groups: dict[str, list[Subject]] = {}
    for s in subjects:
        groups.setdefault(s.group, []).append(s)
    lines = {
        members[0].name if len(members) == 1 else f"{members[0].name} and like it": [
            s.records for s in members
        ]
        for members in groups.values()
    }
    if any(records for runs in lines.values() for records in runs):
        curves(lines, folder / "curves.png")
        yield "<h2>Training</h2>"
        yield picture(
            folder / "curves.png", f"Accuracy and loss on meta-validation by meta-step of {', '.join(lines)}"
        )
    yield table(
        "What it took",
        [
            "run",
            "parameters",
            "meta-steps",
            "minutes",
            "core-minutes",
            "MB in training",
            "ms to adapt",
            "commit",
        ],
        [[s.name, *cost(s)] for s in subjects],
    )
    yield from as_published(subjects, folder)


def named(s: Subject) -> str:
    """A run by its name, and whether there is more to come of it."""
    return s.name + ("" if s.run.finished else " (not at its end)")


def accuracies(subjects: Sequence[Subject]) -> Iterator[str]:
    """Of runs on classes, with the controls below each."""
    rows = []
    for s in subjects:
        m = s.measured
        kind = f"{m['way']}-way {m['shot']}-shot, {s.unseen.name}"
        number = percent(m["accuracy"], m["ci95"])
        rows.append([named(s), s.config.learner, kind, number, str(m["tasks"]), m["mode"]])
        for floor in s.floors:
            e = floor.evaluation
            rows.append(["", floor.name, kind, percent(e.accuracy, e.ci95), str(e.tasks), e.mode])
    if rows:
        yield "<h2>Accuracy on classes that were never seen</h2>"
        yield table(
            "Accuracy with its 95 % interval over tasks; below a run the controls on such tasks, "
            "those that are trained once quickstudy evaluate RUN --floors has measured them",
            ["run", "learner", "tasks of", "accuracy", "tasks", "normalisation"],
            rows,
        )


def squared_errors(subjects: Sequence[Subject]) -> Iterator[str]:
    """Of runs on functions, with simple answers below each."""
    rows = []
    for s in subjects:
        kind = f"{s.measured['shot']} points, {s.unseen.name}"
        below = [("", floor.name, floor.evaluation.json()) for floor in s.floors]
        for name, learner, m in [(named(s), s.config.learner, s.measured), *below]:
            nats = m.get("log_likelihood")
            likely = "–" if nats is None else f"{nats:.3f}"
            rows.append([name, learner, kind, squared(m["loss"], m["ci95"]), likely, str(m["tasks"])])
    if rows:
        yield "<h2>Error on functions that were never seen</h2>"
        yield table(
            "Mean squared error with its 95 % interval over tasks, and the log-likelihood of those that say "
            "how sure they are; below a run what simple answers are worth on the same tasks",
            ["run", "learner", "tasks of", "mean squared error", "nats a point", "tasks"],
            rows,
        )


def cost(s: Subject) -> list[str]:
    """A run's size, time and memory."""
    spent, parameters = s.spent, sum(p.numel() for p in s.learner.parameters())

    def minutes(name: str) -> str:
        return "–" if spent.get(name) is None else f"{spent[name] / 60:.1f}"

    memory = spent.get("peak_memory_mb")
    return [
        f"{parameters:,}",
        f"{spent.get('iteration', '–')}",
        minutes("seconds"),
        minutes("core_seconds"),
        "–" if memory is None else f"{memory:.0f}",
        f"{s.adapt_ms:.1f}",
        "–" if s.commit is None else s.commit[:7] + " and changes" * ("+" in s.commit),
    ]


def who_is_better(subjects: Sequence[Subject]) -> Iterator[str]:
    """Every pair of runs on the same tasks."""
    rows, others = [], []
    for a, b in itertools.combinations(subjects, 2):
        why = a.comparable(b)
        if why is not None:
            others.append(f"{a.name} and {b.name}: {why}")
            continue
        d = paired(a.measured["by_task"], b.measured["by_task"])
        first, second = (a, b) if d.mean >= 0 else (b, a)
        better = second if a.config.functions else first  # an error had better be small
        verdict = f"{better.name} is better" if d.clear else "no difference that this many tasks show"
        gap = f"{100 * abs(d.mean):.2f} ± {100 * d.ci95:.2f} points"
        if a.config.functions:
            gap = squared(abs(d.mean), d.ci95)
        rows.append([f"{first.name} − {second.name}", gap, str(d.tasks), verdict])
    if rows or others:
        yield "<h2>Is one better?</h2>"
    if rows:
        yield table(
            "The difference of accuracy, or of error, on the same tasks, with its 95 % interval",
            ["runs", "difference", "tasks", ""],
            rows,
        )
    if others:
        yield f"<p>Not compared, {escape('; '.join(others))}.</p>"


def as_published(subjects: Sequence[Subject], folder: Path) -> Iterator[str]:
    """Quick, Draw!: the published six curves behind those of runs of MAML."""
    ours = [s for s in subjects if s.config.learner == "maml" and s.config.data == "quickdraw"]
    kinds: dict[tuple[int, int], dict[int, list[Sequence[Mapping[str, Any]]]]] = {}
    for s in ours:
        samples = 100 if (s.config.samples_per_class or FEW_DRAWINGS) >= 100 else FEW_DRAWINGS
        if s.config.way in (5, 10):
            kinds.setdefault((s.config.way, samples), {}).setdefault(s.config.shot, []).append(s.records)
    for (way, samples), mine in sorted(kinds.items()):
        path = folder / f"quickdraw-{way}-way-{samples}.png"
        six_curves({shot: mean_of(runs) for shot, runs in mine.items()}, way, samples, path)
        missing = [str(shot) for shot in (1, 5, 10) if shot not in mine]
        yield f"<h2>As published: Quick, Draw!, {way}-way, {samples} drawings a class</h2>"
        source = published()["source"]
        lacking = f" Not trained here: {', '.join(missing)} shots." if missing else ""
        yield f"<p>Grey: {escape(source)}; transductive, on its own draw of the data.{lacking}</p>"
        yield picture(path, f"Training and validation accuracy by epoch, {way}-way, published and here")


def alone(s: Subject, folder: Path, number: int) -> Iterator[str]:
    """What is of one run: ways and shots, calibration, confusions, the worst tasks."""
    yield f"<h2>{escape(s.name)}</h2>"
    stem = f"{number + 1}-{''.join(c if c.isalnum() else '-' for c in s.name)[:40]}"
    if s.grid and s.config.functions:
        cells = [(shot, cell) for (_, shot), cell in s.grid.items()]
        yield table(
            f"Mean squared error by points shown, {s.cells} tasks each",
            ["points", *(str(shot) for shot, _ in cells)],
            [["error", *(cell if isinstance(cell, str) else squared(*cell) for _, cell in cells)]],
        )
    elif s.grid:
        path = folder / f"{stem}-ways.png"
        heat_map(s.grid, path)
        yield picture(path, f"Accuracy of {s.name} by way and shot")
        reasons = dict.fromkeys(cell for cell in s.grid.values() if isinstance(cell, str))
        yield "".join(f"<p>–: {escape(reason)}</p>" for reason in reasons)
    if s.calibration is not None:
        path = folder / f"{stem}-calibration.png"
        reliability(s.calibration, path)
        yield picture(path, f"Accuracy by confidence; calibration error {s.calibration.error:.3f}")
    if s.confusion:
        path = folder / f"{stem}-confusion.png"
        confusion_matrix(s.confusion, path)
        yield picture(path, "The classes most often taken for each other")
    yield from worst_tasks(s, folder, stem)


def worst_tasks(s: Subject, folder: Path, stem: str) -> Iterator[str]:
    """The tasks with the lowest accuracies, or highest errors; pictures and curves are drawn."""
    tasks, unseen = s.tasks, s.unseen
    yield f"<h3>{escape(s.name)}: its worst tasks</h3>"
    for i in s.worst:
        task, value = tasks.task(i), s.measured["by_task"][i]
        told = f"Task {i}: " + (f"error {value:.3g}" if s.config.functions else f"{100 * value:.0f} % right")
        yield f"<p>{told}</p>"
        path = folder / f"{stem}-task-{i}.png"
        if isinstance(unseen, Functions):
            fit_picture(s.learner, task, path)
            yield picture(path, told)
        elif task.support.x.ndim == 4 and task.classes is not None:
            with normalising(s.learner, s.measured["statistics"]):
                predictor = s.learner.adapt(task.support)
            task_picture(task, predictor, path, [unseen.names[int(c)] for c in task.classes])
            yield picture(path, told)


def commands(subjects: Sequence[Subject]) -> Iterator[str]:
    """What to type for the same."""
    yield "<h2>The same again</h2>"
    for s in subjects:
        yield f"<h3>{escape(s.name)}</h3>\n<pre>{escape(chr(10).join(s.commands))}</pre>"
    tasks, cells = str(subjects[0].measured["tasks"]), str(subjects[0].cells)
    words = ["quickstudy", "report", *(s.place for s in subjects), "--tasks", tasks, "--grid", cells]
    yield f"<h3>This page</h3>\n<pre>{escape(shlex.join(words))}</pre>"

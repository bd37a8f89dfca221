"""The user's own folder: five classes a run never saw, three examples each, `predict` on the rest.

    QUICKSTUDY_DATA=DIR python benchmarks/own_folder.py runs/omniglot-authors-protonet

Each draw takes five characters of Omniglot's evaluation alphabets, writes them as the publisher's PNGs
(105 × 105, black on white) into a support and a query folder, and calls the command line as a user would.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

from record import count, options

from quickstudy.app.cli import main as quickstudy
from quickstudy.data.cache import find
from quickstudy.files import write_json
from quickstudy.outer.run_folder import RunFolder
from quickstudy.recipes.recipe import Setting, provenance


def one_draw(run: Path, archive: zipfile.ZipFile, classes: dict[str, list[str]], seed: int) -> float:
    """The share of right answers of one `quickstudy predict`."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        support, query = Path(place) / "support", Path(place) / "query"
        query.mkdir()
        for number, name in enumerate(rng.sample(sorted(classes), 5)):
            label = f"class-{number}"
            (support / label).mkdir(parents=True)
            for i, file in enumerate(rng.sample(classes[name], 20)):
                target = support / label / f"{i}.png" if i < 3 else query / f"{label}_{i}.png"
                target.write_bytes(archive.read(file))
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            words = ["predict", str(run), "--support", str(support), "--query", str(query), "--json"]
            assert quickstudy(words) == 0
        predictions = json.loads(said.getvalue())["predictions"]
        assert len(predictions) == 85
        return statistics.mean(Path(p["file"]).name.startswith(p["label"] + "_") for p in predictions)


def main() -> None:
    parser = options(__doc__, "own_folder")
    parser.add_argument("run", type=Path)
    parser.add_argument("--draws", type=count, default=50)
    given = parser.parse_args()
    if RunFolder.open(given.run).config["split"] != "authors":
        raise SystemExit("a run on the authors' split is needed: others have seen some of these characters")
    path = find(["omniglot/images_evaluation.zip", "images_evaluation.zip"])
    if path is None:
        raise SystemExit("images_evaluation.zip is not here: set QUICKSTUDY_DATA to the folder of data")
    begun = time.monotonic()
    with zipfile.ZipFile(path) as archive:
        classes: dict[str, list[str]] = {}
        for file in archive.namelist():
            if file.endswith(".png") and not Path(file).name.startswith("."):
                classes.setdefault(str(Path(file).parent), []).append(file)
        accuracies = [one_draw(given.run, archive, classes, seed) for seed in range(given.draws)]
    mean = statistics.mean(accuracies)
    ci95 = 1.96 * statistics.stdev(accuracies) / math.sqrt(len(accuracies))
    result = {
        **provenance(Setting("own-folder")),
        "command": f"QUICKSTUDY_DATA=DIR python benchmarks/own_folder.py {given.run}",
        "title": "five unseen characters as PNG, three examples each, `predict` on the other 17 of each",
        "draws": given.draws,
        "accuracy": mean,
        "ci95": ci95,
        "worst_draw": min(accuracies),
        "target": 0.9,
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(f"{mean:.1%} ± {ci95:.1%} over {given.draws} draws, the worst {min(accuracies):.1%}")
    write_json(given.out, result)


if __name__ == "__main__":
    main()

"""The commands under torchrun: what they say, and runs that go on when a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickstudy.app.cli import main

Together = Callable[..., list[Any]]
Outcome = Callable[[Path], dict[str, Any]]
# A forked child runs no thread of its parent's, of which the warning speaks.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
OPTIONS = (
    "train --data digits --learner maml --way 3 --query 2 --iterations 60 --meta-batch 3 --body mlp --size 8 "
    "--channels 4 --validate-every 10 --validation-tasks 3 --steps 1 --strategy loop --resume --out"
)
COUNTED = """
import os, sys, time
from pathlib import Path
from quickstudy.app.cli import main
module, rank = sys.modules["quickstudy.outer.meta_train"], int(os.environ["RANK"])
meta_gradient = module.meta_gradient

def counted(learner, tasks, i, *rest):
    with open(f"steps-{rank}", "a") as file:
        file.write(f"{os.getpid()} {i}\\n")
    if (rank, i) == (VICTIM, 25) and not Path("victim").exists():
        Path("victim").write_text(str(os.getpid()))
        time.sleep(60)
    return meta_gradient(learner, tasks, i, *rest)

module.meta_gradient = counted
sys.exit(main())
"""


NODE = "{node}"


def begun(agents: int, place: Path, *words: object) -> list[subprocess.Popen[str]]:
    """So many torchruns with these words, in which NODE is the agent's number."""
    runs = []
    for node in range(agents):
        command = [sys.executable, "-m", "torch.distributed.run", *map(str, words)]
        command = [word.replace(NODE, str(node)) for word in command]
        runs.append(
            subprocess.Popen(command, cwd=place, env=environment(), stderr=subprocess.PIPE, text=True)
        )
    return runs


def ended(runs: list[subprocess.Popen[str]]) -> None:
    said = [run.communicate(timeout=180)[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), said


def stop(runs: list[subprocess.Popen[str]]) -> None:
    """torchrun ends its workers when it is asked to end."""
    for run in runs:
        if run.poll() is None:
            run.terminate()
            run.communicate()


def environment() -> dict[str, str]:
    """As a user starts it: without what this process was told of others, the package found from anywhere."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC", "MASTER_", "RANK"))}
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def test_the_commands(together: Together, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What one process says is said once; a mistake too, though all make it."""

    def command(*words: object) -> tuple[list[int], str, str]:
        codes = together(2, lambda rank: main([*map(str, words)]), join=False)
        return (codes, *capfd.readouterr())

    run = tmp_path / "run"
    main([*OPTIONS.split(), str(tmp_path / "first")])  # what is slow only once is over
    capfd.readouterr()
    codes, _, said = command(*OPTIONS.split(), run)
    assert codes == [0, 0]
    assert [line.split()[0] for line in said.splitlines()].count("60") == 1
    assert said.count("next: quickstudy evaluate") == 1
    assert main(["evaluate", str(run), "--tasks", "30", "--json"]) == 0
    alone = json.loads(capfd.readouterr().out)
    codes, told, _ = command("evaluate", run, "--tasks", 30, "--json")
    assert codes == [0, 0]
    assert json.loads(told) == {k: pytest.approx(v) if isinstance(v, float) else v for k, v in alone.items()}
    for words, mistake in (
        (("train", "--way", 1000, "--out", tmp_path / "no"), "way"),
        (("evaluate", run, "--floors"), "--floors is the work of one process: start it without torchrun"),
        (("data", "list"), "data is the work of one process: start it without torchrun"),
        ((*OPTIONS.replace("--resume ", "").split(), run), "exists already"),
    ):
        codes, told, said = command(*words)
        assert codes == [2, 2]
        assert not told
        assert mistake in said
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("victim", "agents"), [(1, 1), *(pytest.param(v, n, marks=pytest.mark.slow) for v, n in ((0, 1), (1, 2)))]
)
def test_a_worker_is_killed_and_torchrun_restarts_all(
    victim: int, agents: int, free_port: int, together: Together, tmp_path: Path, outcome: Outcome
) -> None:
    """On one machine, and on two that meet by c10d, of which the one without the victim counts no restart."""
    assert together(2, lambda rank: main([*OPTIONS.split(), str(tmp_path / "unbroken")])) == [0, 0]
    (tmp_path / "counted.py").write_text(COUNTED.replace("VICTIM", str(victim)))
    place = ["--nnodes", agents, "--nproc-per-node", 2 // agents, "--max-restarts", 2]
    meet = ["--rdzv-backend", "c10d", "--rdzv-id", "it", "--rdzv-endpoint", f"127.0.0.1:{free_port}"]
    place += ["--master-port", free_port] if agents == 1 else meet
    runs = begun(agents, tmp_path, *place, "counted.py", *OPTIONS.split(), "killed")
    try:
        until, note = time.monotonic() + 120, tmp_path / "victim"
        while not (note.exists() and note.read_text()):
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(int(note.read_text()), signal.SIGKILL)
        ended(runs)
    finally:
        stop(runs)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")
    for rank in range(2):
        steps: dict[str, list[int]] = {}
        for line in (tmp_path / f"steps-{rank}").read_text().splitlines():
            process, i = line.split()
            steps.setdefault(process, []).append(int(i))
        before, after = steps.values()
        # The last checkpoint is that of meta-step 20, or the one that the first process kept as it left.
        assert 20 <= after[0] <= 25
        assert before == list(range(before[-1] + 1))
        assert before[-1] in (24, 25)
        assert after == list(range(after[0], 60))


def test_two_machines_rehearsed_with_two_agents(
    free_port: int, together: Together, tmp_path: Path, outcome: Outcome
) -> None:
    """Static rendezvous on the loopback; each machine has a folder of its own; the first keeps the run."""
    assert together(2, lambda rank: main([*OPTIONS.split(), str(tmp_path / "one machine")])) == [0, 0]
    place = ["--nnodes", 2, "--node-rank", NODE, "--master-addr", "127.0.0.1", "--master-port", free_port]
    runs = begun(
        2, tmp_path, *place, "--nproc-per-node", 1, "-m", "quickstudy", *OPTIONS.split(), f"node {NODE}"
    )
    try:
        ended(runs)
    finally:
        stop(runs)
    assert outcome(tmp_path / "node 0") == outcome(tmp_path / "one machine")
    assert not (tmp_path / "node 1").exists()

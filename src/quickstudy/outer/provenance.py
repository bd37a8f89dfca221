"""What the numbers of a run may depend on besides its options."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from quickstudy.version import __version__


def environment() -> dict[str, Any]:
    """Versions, commit, machine, threads, as JSON.

    >>> environment()["quickstudy"] == __version__
    True
    """
    return {
        "quickstudy": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The commit of the checkout this code is in, marked where it was changed; None outside of one."""
    here = Path(__file__).parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", __file__)  # else this is another project's checkout
        return git("rev-parse", "--short", "HEAD").strip() + (
            "+changes" if git("status", "--porcelain", ".") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def forget_peak() -> None:
    """Count the peak of memory from now on, where the system can: on Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float | None:
    """The most resident memory this process has had, since `forget_peak` where that was called, in MB; None
    where the system does not tell.

    >>> (peak_memory_mb() or 100) > 10
    True
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)

"""The kernels of `conv_block.c`, built by the machine's C compiler, once.

The library lies in the cache folder under the name of what it was made of: the source, the compiler, the
processor. Without a compiler, and until it is built, nets use torch's kernels.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad

from quickstudy.data.cache import cache_root

T = TypeVar("T")
SOURCE = Path(__file__).with_name("conv_block.c")
REALS = {torch.float32: "float", torch.float64: "double"}
FLAGS = (
    *("-shared", "-fPIC", "-pthread", "-w", "-O2", "-ftree-vectorize", "-fno-math-errno"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"),
)
TUNED = (
    ("-march=native", "-mprefer-vector-width=512", "-fvect-cost-model=dynamic"),  # gcc on x86
    ("-march=native",),
    ("-mcpu=native",),
    (),
)
"""Flags for this very processor, of which a compiler may know none; the first that work are taken."""
_log = logging.getLogger("quickstudy")
_wanted: ContextVar[bool] = ContextVar("native kernels", default=False)
_allowed: ContextVar[bool] = ContextVar("native kernels allowed", default=True)
_second_order: ContextVar[bool] = ContextVar("second order", default=False)
_threads: ContextVar[int] = ContextVar("threads of the native kernels", default=0)
"""How many serve a kernel; 0 for as many as torch's."""
LONG = 200
"""Tasks from which on it pays to build the kernels."""
_lock = threading.Lock()
_failed: set[Path] = set()
"""What this process could not build, and does not try again."""


KERNELS = ("forward", "backward", "twice")
"""In the source's order."""


class Dims(ctypes.Structure):
    """Examples, channels in and out, height and width."""

    _fields_ = [(name, ctypes.c_long) for name in ("B", "Ci", "Co", "H", "W")]


class Native:
    """The kernels for one kind of number, as a shared library holds them."""

    def __init__(self, path: Path) -> None:
        self.run = ctypes.CDLL(str(path)).run
        self.run.argtypes = [
            *(ctypes.c_int, ctypes.POINTER(Dims), ctypes.c_double),
            *(ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_long), ctypes.c_long, ctypes.c_long),
        ]

    def __call__(
        self, name: str, dims: Dims, number: float, tasks: int | None, *tensors: Tensor | None
    ) -> None:
        """Run a kernel for each of some tasks, by torch's number of threads.

        Args:
            tensors: each with a first dimension over tasks, the rest contiguous; without it where tasks is
                None, which is one task.
        """
        if tasks == 0:
            return
        pointers = (ctypes.c_void_p * len(tensors))(*[v if v is None else v.data_ptr() for v in tensors])
        strides = (ctypes.c_long * len(tensors))(
            *[0 if v is None or tasks is None else v.stride(0) for v in tensors]
        )
        threads = _threads.get() or torch.get_num_threads()
        if self.run(KERNELS.index(name), dims, number, pointers, strides, tasks or 1, threads):
            raise MemoryError("there is too little memory for a convolution's work space")


@contextmanager
def _set(variable: ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def kernels() -> AbstractContextManager[None]:
    """Within this block nets use these kernels where they can."""
    return _set(_wanted, True)


def second_order() -> AbstractContextManager[None]:
    """Within this block what is computed will be differentiated twice."""
    return _set(_second_order, True)


def is_second_order() -> bool:
    """Whether what is computed here will be differentiated twice."""
    return _second_order.get()


def allowing(native: bool) -> AbstractContextManager[None]:
    """Within this block only torch's kernels are used, unless `native`: as a run was begun, so it goes on."""
    return _set(_allowed, native and _allowed.get())


def native(*tensors: Tensor) -> Native | None:
    """The kernels for these tensors; None where they are not wanted, not built or not for such tensors."""
    if not (_wanted.get() and _allowed.get()) or not _plain_run():
        return None
    dtype = tensors[0].dtype
    if dtype not in REALS or any(v.dtype != dtype or v.device.type != "cpu" for v in tensors):
        return None
    if any(type(v) not in (Tensor, nn.Parameter) for v in tensors):  # which may hold no numbers
        return None
    return _loaded(dtype)


def _plain_run() -> bool:
    """Whether numbers are computed here, and differentiated as kernels can be: backwards, over one vmap."""
    if torch.is_autocast_enabled("cpu") or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    if forward_ad._current_level >= 0:
        return False
    if not torch._C._are_functorch_transforms_active():
        return True
    stack = [level.key() for level in retrieve_all_functorch_interpreters()]
    maps = stack.count(TransformType.Vmap)
    return maps < 2 and maps + stack.count(TransformType.Grad) == len(stack)


def built() -> bool:
    """Whether the kernels are there, and allowed."""
    return _allowed.get() and _loaded(torch.float32) is not None


def serve(module: nn.Module) -> bool:
    """Whether the kernels compute a part of this module, of the numbers it is of and where it is."""
    if not (_allowed.get() and _plain_run()):
        return False
    if not any(getattr(m, "native", None) is True for m in module.modules()):
        return False
    return all(p.device.type == "cpu" and p.dtype in REALS and _loaded(p.dtype) for p in module.parameters())


@contextmanager
def all_processors(module: nn.Module) -> Iterator[None]:
    """Within this block the processors are the kernels', where they compute a part of this module.

    Torch's own threads look for work for a while after each operation, on the processors that a kernel needs.
    """
    if not serve(module):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _set(_threads, _threads.get() or threads):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def settled(
    tasks: int, begun_with: str | None = None, say: Callable[[str], None] = _log.info
) -> Iterator[str]:
    """Decide for all of this block whether the kernels are used, "native" or "torch". They are not taken up
    half-way, so that a run can be repeated bit for bit.

    Args:
        tasks: how many there will be; it may be worth building the kernels.
        begun_with: what a run that goes on was begun with; None for what begins.
        say: called with a line where something is built, or cannot be.
    """
    if begun_with is None:
        ready = built() or (tasks >= LONG and build(say))
    else:
        ready = begun_with == "native" and build(say)
        if begun_with == "native" and not ready:
            say("begun with native kernels, this run goes on with torch's: not bit for bit")
    with allowing(ready):
        yield "native" if ready else "torch"


@cache
def _loaded(dtype: torch.dtype) -> Native | None:
    """The library, if it is built."""
    path = _path(dtype)
    try:
        return Native(path) if path is not None and path.is_file() else None
    except (OSError, AttributeError):  # damaged: it is as if it were not there
        return None


def build(say: Callable[[str], None] = _log.info, dtype: torch.dtype = torch.float32) -> bool:
    """Build the kernels unless they are there; whether they then are.

    Args:
        say: called with a line where something is built, or cannot be.
    """
    if not _allowed.get():
        return False
    with _lock:
        if _loaded(dtype) is not None:
            return True
        path, began = _path(dtype), time.monotonic()
        if path is None or path in _failed:
            return False
        compiler = _compiler()
        if compiler is None:
            say("no C compiler (cc, gcc, clang) is here: convolutions use torch's kernels, which are slower")
            return False
        try:
            made = _compiled(compiler, dtype, path)
        except OSError as error:  # a folder that cannot be written to
            _failed.add(path)
            say(f"the convolution kernels cannot be kept in {path.parent} ({error}): torch's are used")
            return False
        if not made:
            _failed.add(path)
            say(f"{compiler} could not build the convolution kernels: torch's are used, which are slower")
            return False
        _loaded.cache_clear()
        say(f"convolution kernels built in {time.monotonic() - began:.1f} s, once on this machine: {path}")
        return _loaded(dtype) is not None


def _compiled(compiler: str, dtype: torch.dtype, path: Path) -> bool:
    """Compile into `path`, which is there whole or not at all, and only if what it computes is right."""
    from quickstudy.nets.fused import is_right

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as folder:
        for number, tuned in enumerate(TUNED):
            made = Path(folder) / f"{number}-{path.name}"  # a name is loaded once only
            command = [
                compiler,
                *FLAGS,
                *tuned,
                f"-DREAL={REALS[dtype]}",
                "-o",
                str(made),
                str(SOURCE),
                "-lm",
            ]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=300)
                right = is_right(Native(made), dtype)
            except (OSError, AttributeError, subprocess.SubprocessError):
                continue
            if right:
                os.replace(made, path)
                return True
    return False


@cache
def _compiler() -> str | None:
    """The machine's C compiler."""
    named = os.environ.get("CC", "").split()[:1]
    return next((found for name in (*named, "cc", "gcc", "clang") if (found := shutil.which(name))), None)


@cache
def _path(dtype: torch.dtype) -> Path | None:
    """Where the library lies; None where these kernels are turned off."""
    if os.environ.get("QUICKSTUDY_KERNELS") == "torch" or os.name != "posix":
        return None
    made_of = hashlib.sha256(SOURCE.read_bytes())
    for part in (*FLAGS, *map(str, TUNED), _compiler() or "", _processor()):
        made_of.update(part.encode())
    try:
        root = cache_root()
    except RuntimeError:  # nobody's home
        return None
    return root / "kernels" / f"{REALS[dtype]}-{made_of.hexdigest()[:16]}.so"


def _processor() -> str:
    """What this processor can do, as far as the system tells: a cache folder may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return " ".join(next((line for line in lines if line.startswith(k)), "") for k in ("flags", "Features"))

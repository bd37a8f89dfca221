"""Tensors and a JSON header in one file, in the safetensors format, with checksums over both; no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from quickstudy.errors import RunError
from quickstudy.files import write_bytes

VERSION = 1


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a file that `read_tensors` reads, atomically.

    Raises:
        RunError: the folder cannot be written to, or the disk is full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(Path(folder) / "a.safetensors", {"w": torch.ones(2)}, {"iteration": 7})
    ...     read_tensors(Path(folder) / "a.safetensors")
    ({'w': tensor([1., 1.])}, {'iteration': 7})
    """
    content: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        # Tied weights are one tensor under two names, which safetensors refuses.
        content[name] = kept.clone() if kept.untyped_storage().data_ptr() in places else kept
        places.add(kept.untyped_storage().data_ptr())
    header = {"version": VERSION, "sum": checksum(content), "meta_sum": meta_checksum(meta), **meta}
    write_bytes(path, save_tensors(content, {"quickstudy": json.dumps(header)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by name, and the header, of a file that `write_tensors` wrote.

    Raises:
        RunError: it is damaged, or another kind of file.
        FileNotFoundError: there is none.
    """
    try:
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["quickstudy"])
        tensors = load_tensors(raw)
        own = {k: header.pop(k, None) for k in ("version", "sum", "meta_sum")}
    except FileNotFoundError:
        raise
    except Exception as error:
        raise RunError(f"{path} is damaged: {error}") from error
    # Files of the first runs have no meta_sum.
    if own["sum"] != checksum(tensors) or own["meta_sum"] not in (None, meta_checksum(header)):
        raise RunError(f"{path} is damaged: its checksum does not match")
    return tensors, header


def meta_checksum(meta: Mapping[str, Any]) -> str:
    """16 hex digits over a JSON value."""
    return hashlib.blake2b(json.dumps(dict(meta)).encode(), digest_size=8).hexdigest()


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits over names, types and bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

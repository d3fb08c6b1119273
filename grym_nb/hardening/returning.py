"""Memory back to the system: what was freed, and lies in an allocator's caches."""

from __future__ import annotations

import ctypes
import gc
import sys
from functools import cache
from typing import Any

__all__ = ["can_trim", "give_back"]


def give_back(device: str | None = None, *, collect: bool = True) -> bool:
    """Give freed memory back; tell whether the system has what was this process's own.

    Of the C library's heap that is what glibc's ``malloc_trim`` gives back; elsewhere the system may keep
    pages until they are needed. Of accelerators torch's caches are emptied, of all or of one `device`.
    """
    if collect:
        gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and device != "cpu":
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if torch.backends.mps.is_available():
            torch.mps.empty_cache()
    trim = _trim()
    if trim is None:
        return False
    trim(0)
    return True


def can_trim() -> bool:
    """Tell whether freed memory can be given back to the system at once."""
    return _trim() is not None


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # no glibc: musl, macOS, Windows
        return None

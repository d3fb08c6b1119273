"""Sizes as people write them: "2GB", and by what they are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from grym_nb.errors import ConfigError, Problem

__all__ = ["Sizes", "large_size", "parse_size", "sizes_of"]

#: "4GB" of all, or {"cuda:0": "20GB"}
Sizes: TypeAlias = "str | float | Mapping[str, str | float | None] | None"

_SMALL = 10_000
_MOST = 10**18  # bytes: a million terabytes
_SIZE = re.compile(r"([0-9]+)(\.[0-9]+)?\s*([kmgtp]?)(i?)b?", re.IGNORECASE)


def parse_size(value: str | float) -> int:
    """Return `value` in bytes: 2000, 4e9, "2GB", "1.5 GB", "512 MiB".

    KB, MB, GB, TB are powers of 1000; KiB, MiB, GiB, TiB powers of 1024; the case does not matter, nor the B
    after a letter. Text without a unit is refused: "200" may have meant megabytes.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
        return value
    if isinstance(value, str) and len(value) < 40 and (match := _SIZE.fullmatch(value.strip())):
        whole, fraction, unit, binary = match.groups()
        if unit or (not binary and value.strip()[-1] in "bB"):
            scale = int((1024 if binary else 1000) ** " kmgtp".index(unit.lower() or " "))
            size = int(whole) * scale + (round(float(fraction) * scale) if fraction else 0)
            if size <= _MOST:
                return size
    expected = "text with a unit such as '2GB' or '512 MiB', or bytes as a number"
    if isinstance(value, str) and value.strip().isdecimal():
        expected = f"a unit: '{value.strip()}B' are so many bytes"
    problem = Problem("size", repr(value), expected)
    raise ConfigError(f"{value!r} is not a size", problems=[problem])


def large_size(value: str | float) -> int:
    """Return the size of something large in bytes: a small number without a unit may have meant GB."""
    size = parse_size(value)
    if isinstance(value, (int, float)) and size < _SMALL:
        problem = Problem("size", repr(value), f"text with a unit: '{value}GB', or '{value}B'")
        raise ConfigError(f"{value!r} is so many bytes: is that meant?", problems=[problem])
    return size


def sizes_of(value: Sizes) -> dict[str, int]:
    """Return sizes by what they are of, in bytes: of "total" where only one is given."""
    told = value if isinstance(value, Mapping) else {"total": value}
    return {str(name): large_size(size) for name, size in told.items() if size is not None}

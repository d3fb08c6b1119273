"""Tiny models that were trained from nothing on sounds made here, and that are part of the package."""

__all__: list[str] = []

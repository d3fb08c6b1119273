"""Tiny models that were trained from nothing on sounds made here, and that are part of the package."""

from grym_nb.audio.zoo.catalogue import Model, find, models

__all__ = ["Model", "find", "models"]

"""Clip: immutable audio, samples and a rate, read lazily from files, heard and seen in a notebook."""

from grym_nb.clip.sound import Clip

__all__ = ["Clip"]

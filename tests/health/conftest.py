"""Registries for those who judge them."""

from tests.services.conftest import clock, driven, registry

__all__ = ["clock", "driven", "registry"]

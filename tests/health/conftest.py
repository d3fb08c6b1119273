"""Registries for those who judge them."""

from tests.health.ward import house
from tests.services.conftest import clock, driven, registry

__all__ = ["clock", "driven", "house", "registry"]

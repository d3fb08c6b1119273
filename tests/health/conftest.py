"""Registries for those who judge them."""

from tests.health.house import house
from tests.health.ward import ward
from tests.services.conftest import clock, driven, registry

__all__ = ["clock", "driven", "house", "registry", "ward"]

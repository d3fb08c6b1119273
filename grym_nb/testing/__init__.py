"""What tests of code that uses grym_nb need."""

from grym_nb.testing.clock import FakeClock

__all__ = ["FakeClock"]

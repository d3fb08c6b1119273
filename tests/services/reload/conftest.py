"""What the tests of reloading share."""

from tests.services.reload.files import edited

__all__ = ["edited"]

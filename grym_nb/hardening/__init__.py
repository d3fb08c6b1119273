"""What keeps a call safe: a breaker in front of what is failing."""

from grym_nb.hardening.breaker import BreakerSnapshot, CircuitBreaker
from grym_nb.hardening.thresholds import BreakerPolicy

__all__ = ["BreakerPolicy", "BreakerSnapshot", "CircuitBreaker"]

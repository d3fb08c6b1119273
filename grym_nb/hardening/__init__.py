"""What keeps a call safe: a breaker in front of what is failing, and trying again."""

from grym_nb.hardening.breaker import BreakerSnapshot, CircuitBreaker
from grym_nb.hardening.retry import Retry, RetryBudget
from grym_nb.hardening.thresholds import BreakerPolicy

__all__ = ["BreakerPolicy", "BreakerSnapshot", "CircuitBreaker", "Retry", "RetryBudget"]

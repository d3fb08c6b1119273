"""What keeps a call safe: a breaker in front of what is failing, trying again, and one's turn on a device."""

from grym_nb.hardening.breaker import BreakerSnapshot, CircuitBreaker
from grym_nb.hardening.leases import Lease
from grym_nb.hardening.resources import Resource, ResourcePool
from grym_nb.hardening.retry import Retry, RetryBudget
from grym_nb.hardening.thresholds import BreakerPolicy

__all__ = [
    "BreakerPolicy",
    "BreakerSnapshot",
    "CircuitBreaker",
    "Lease",
    "Resource",
    "ResourcePool",
    "Retry",
    "RetryBudget",
]

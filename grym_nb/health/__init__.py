"""Judged above the services: how each of them does, what is done about it, and who is told."""

from grym_nb.health.advice import Suggestion, suggestions
from grym_nb.health.alerts import Alerts
from grym_nb.health.graph import Topology, topology
from grym_nb.health.judge import Health, Limits
from grym_nb.health.monitor import HealthMonitor, SystemHealth
from grym_nb.health.notices import Alert, Notice
from grym_nb.health.recovery import Recovery
from grym_nb.health.remedies import RecoveryPolicy
from grym_nb.health.rules import Rule
from grym_nb.health.silences import Silence

__all__ = [
    "Alert",
    "Alerts",
    "Health",
    "HealthMonitor",
    "Limits",
    "Notice",
    "Recovery",
    "RecoveryPolicy",
    "Rule",
    "Silence",
    "Suggestion",
    "SystemHealth",
    "Topology",
    "suggestions",
    "topology",
]

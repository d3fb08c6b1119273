"""What things were called elsewhere, what they are called here, and where they are."""

from __future__ import annotations

from dataclasses import dataclass

from grym_nb.notebook.sheet import Sheet
from grym_nb.render import Table

__all__ = ["GLOSSARY", "Row", "glossary"]


@dataclass(frozen=True, slots=True)
class Row:
    """One name: the original, what it is called here, and the module or object that it is."""

    original: str
    here: str
    where: str


#: Names that are kept are here too: whoever looks for them finds them. A part adds its rows when it comes.
GLOSSARY: tuple[Row, ...] = (
    Row("ServiceRegistry", "ServiceRegistry", "grym_nb.services.registry.ServiceRegistry"),
    Row(
        "ServiceFactory",
        "any callable given to register",
        "grym_nb.services.registry.ServiceRegistry.register",
    ),
    Row("ServiceFacade", "ServiceHandle", "grym_nb.services.handle.ServiceHandle"),
    Row(
        "initialize, shutdown, getStatus, getMetrics, executeTask",
        "load, unload, status, metrics, execute",
        "grym_nb.services.handle.ServiceHandle",
    ),
    Row("ContextManager, ContextRepository", "ContextStore", "grym_nb.context.store.ContextStore"),
    Row(
        "ContextAdapter",
        "a function registered with adapter, or adapt_context",
        "grym_nb.context.adapters.adapter",
    ),
    Row("MetricsCollector, MetricsRegistry", "Metrics", "grym_nb.metrics.Metrics"),
    Row("ConfigurationManager", "Settings", "grym_nb.settings.Settings"),
    Row("TaskRouter", "submit, run", "grym_nb.flow"),
    Row("Orchestrator, ModelOrchestrator", "Runtime", "grym_nb.runtime.Runtime"),
    Row("SystemHardening", "the order of steps", "grym_nb.services.path"),
    Row("CircuitBreaker", "CircuitBreaker", "grym_nb.hardening.breaker.CircuitBreaker"),
    Row("ResourceManager", "ResourcePool", "grym_nb.hardening.resources.ResourcePool"),
    Row("HealthMonitor, ServiceHealthMonitor", "HealthMonitor", "grym_nb.health.monitor.HealthMonitor"),
    Row("RecoveryManager", "Recovery", "grym_nb.health.recovery.Recovery"),
    Row(
        "PerformanceMonitor, OperationProfiler",
        "Metrics.track, profile",
        "grym_nb.metrics.profiling.profile",
    ),
    Row("AudioProcessor", "functions, and the dsp service", "grym_nb.audio.features"),
)


def glossary() -> Sheet:
    """Return the table of names."""
    rows = [(row.original, row.here, row.where) for row in GLOSSARY]
    return Sheet("", (Table("glossary", ("original", "here", "where"), rows),))

"""What a model service is and how it lives."""

from grym_nb.services.call import Call, Task, TaskResult
from grym_nb.services.checks import not_empty, one_of, positive, within
from grym_nb.services.handle import BoundTask, ServiceHandle
from grym_nb.services.model import ModelService, task
from grym_nb.services.progress import track
from grym_nb.services.registry import ServiceRegistry
from grym_nb.services.status import ServiceStatus

__all__ = [
    "BoundTask",
    "Call",
    "ModelService",
    "ServiceHandle",
    "ServiceRegistry",
    "ServiceStatus",
    "Task",
    "TaskResult",
    "not_empty",
    "one_of",
    "positive",
    "task",
    "track",
    "within",
]

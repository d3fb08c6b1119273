"""Kinds of edit: what a service is made from, what is changed of it, and what it answers before and after.

Data alone: the tests take them through a reload, and the benchmark takes other tools through the same.
"""

from tests.services.reload.kinds.classes import CLASSES
from tests.services.reload.kinds.code import CODE
from tests.services.reload.kinds.kind import Kind
from tests.services.reload.kinds.modules import MODULES
from tests.services.reload.kinds.names import NAMES
from tests.services.reload.kinds.refused import REFUSED
from tests.services.reload.kinds.saves import SAVES
from tests.services.reload.kinds.state import STATE

__all__ = ["KINDS", "REFUSED", "SAVES", "Kind"]

KINDS: tuple[Kind, ...] = (*CODE, *CLASSES, *NAMES, *MODULES, *STATE)

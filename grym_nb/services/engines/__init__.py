"""Where an instance lives. So far: in this process."""

from grym_nb.services.engines.inline import run
from grym_nb.services.engines.loop import LoopThread

__all__ = ["LoopThread", "run"]

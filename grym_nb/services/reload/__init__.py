"""Hot reload in place: the code is another one, the weights are the same."""

from grym_nb.services.reload.report import Reload

__all__ = ["Reload"]

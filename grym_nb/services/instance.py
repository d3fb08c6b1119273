"""What the factory made, while it is loaded; what it takes; and one load under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grym_nb.hardening.eviction import Heat
from grym_nb.hardening.peaks import Peaks
from grym_nb.services.model import tasks_of

if TYPE_CHECKING:
    from grym_nb.errors import GrymError
    from grym_nb.hardening.leases import Place
    from grym_nb.hardening.reservations import Reservation
    from grym_nb.services.frame import Frame
    from grym_nb.services.model import TaskSpec
    from grym_nb.services.parts import Fit
    from grym_nb.services.policy import CallPolicy
    from grym_nb.services.reload.probation import Probation
    from grym_nb.services.reload.split import Split
    from grym_nb.services.spec import ServiceSpec
    from grym_nb.services.tiers import Parked

__all__ = ["Attempt", "Footprint", "Instance", "Serving", "Sizes"]

_APART = 30.0  # seconds: of looks that follow one another closely, the next ones say nothing new


class Serving:
    """The model as the code of a version has it; other code puts another one there, of the same weights.

    A call keeps the one with which it began.
    """

    __slots__ = ("apart", "before", "model", "number", "probation", "spec", "split", "tasks", "version")

    def __init__(self, model: Any, version: str, number: int, spec: ServiceSpec) -> None:
        self.model = model
        self.version = version
        self.number = number
        self.spec = spec
        known = spec.tasks if type(model) is spec.made_class else None
        self.tasks = tasks_of(type(model)) if known is None else known
        self.before: Serving | None = None  # what this one took the place of
        self.probation: Probation | None = None  # its first calls: what fails is tried on the one before
        self.split: Split | None = None  # while it answers a part of the calls only
        #: None where it shares all attributes with the one before, else those that it has to itself
        self.apart: frozenset[str] | None = None


class Instance:
    """What the factory made, while it is loaded; `users` counts the calls inside it."""

    __slots__ = (
        *(
            "device",
            "epoch",
            "grown",
            "handed_out",
            "learns",
            "loaded_at",
            "located",
            "looked_at",
            "read",
            "reservation",
            "retired",
            "serving",
            "sizes",
        ),
        *("took", "users", "versions", "wanted"),
    )

    def __init__(self, serving: Serving, loaded_at: float, read: frozenset[str] | None) -> None:
        self.serving = serving
        self.versions = [serving]  # what can serve: with the weights that are there
        self.epoch = 0  # of the lane, when it began to serve
        self.loaded_at = loaded_at
        self.took = 0.0  # seconds that its making, or its waking, took; without waits
        self.read = read  # the attributes that `load` read; None: it may have read any
        self.device: Place | None = None  # on which its calls take turns
        self.located: CallPolicy | None = None  # the policy by which that was found
        self.users = 0
        self.retired = False
        self.reservation: Reservation | None = None  # of its memory
        self.grown = 0  # bytes by which the process grew as it was made
        self.handed_out = False  # by `use()`: what it holds may be other by now
        self.looked_at: float | None = None  # when it was last used, as of the last look at what it holds
        self.sizes = Sizes()
        self.learns = False  # what its calls take is worth to know
        self.wanted = False  # somebody waits for it to be idle

    @property
    def model(self) -> Any:
        """What answers calls that begin now; None once it is let go of."""
        return self.serving.model

    @property
    def models(self) -> list[Any]:
        """The model in all versions that are there: what they share is there once, the rest as well."""
        return [one.model for one in tuple(self.versions)]

    def let_go(self) -> Any:
        """Forget the model in all versions; returns it, to be released."""
        model = self.serving.model
        for one in self.versions:
            one.model = one.before = one.split = None
        self.versions = []
        return model

    def trim(self, kept: int) -> list[Serving]:
        """Forget all but the last versions, and those that answer for what serves; returns the others.

        One that was taken back again and again stands on the same version each time: that one goes last.
        """
        needed: list[Serving] = []
        one: Serving | None = self.serving
        while one is not None and len(needed) < kept:
            needed.append(one)
            one = one.before if one.probation is not None else None
        if (split := self.serving.split) is not None and split.rest not in needed:
            needed.append(split.rest)
        rest = [one for one in reversed(self.versions) if one not in needed]
        gone = rest[max(0, kept - len(needed)) :]
        self.versions = [one for one in self.versions if one not in gone]
        for one in self.versions:
            if one.before in gone:
                one.before = None
        return gone

    @property
    def version(self) -> str:
        """The version of the code that answers now."""
        return self.serving.version

    @property
    def tasks(self) -> dict[str, TaskSpec]:
        """What it can do."""
        return self.serving.tasks


class Sizes:
    """What a model was seen to hold: after its load, and how often in a row it was more than before."""

    __slots__ = ("at", "first", "last", "rises")

    def __init__(self) -> None:
        self.first: int | None = None
        self.last = 0
        self.at = 0.0  # when that was
        self.rises = 0

    def note(self, at: float, size: int) -> None:
        """Take down what it holds now."""
        if self.first is None:
            self.first = self.last = size
            self.at = at
        elif at - self.at >= _APART:
            self.rises = self.rises + 1 if size > self.last else 0
            self.last, self.at = size, at


class Footprint:
    """What a service takes in memory, as far as that is known; it outlives the instances."""

    __slots__ = (
        "fits",
        "heat",
        "parked",
        "peaks",
        "shares",
        "sizes",
        "unloading",
        "versions",
        "wake_seconds",
    )

    def __init__(self) -> None:
        self.heat = Heat()
        self.peaks: dict[tuple[str, int, int], Peaks] = {}  # by task and versions of config and code
        self.fits: dict[str, Fit] = {}  # by task, of how many items at a time its batch is computed
        self.sizes: dict[str, int] | None = None  # by device, as measured when it was last there
        self.versions: tuple[object, ...] = ()  # of code, config and device with which that was
        self.shares: tuple[str, ...] = ()  # the keys of weights that it named for all, when it was last there
        self.parked: Parked | None = None  # beside its accelerator, until it is called again
        self.unloading: Frame | None = None  # its unload hook, while that runs
        self.wake_seconds: float | None = None  # what that took, the last time


class Attempt:
    """One load under way: whoever comes meanwhile waits for its outcome."""

    __slots__ = ("error", "frame", "instance", "over", "unwanted")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.instance: Instance | None = None  # once it is made, and in the books
        self.over = False
        self.unwanted = False  # by the call that began it: who waits for it loads it instead
        self.error: GrymError | None = None

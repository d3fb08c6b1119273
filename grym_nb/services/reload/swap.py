"""New code in the place of the old, with the weights as they are; calls keep the code with which they began.

What serves is a model with the version of its code. The new one is an instance of the new class that shares
the attributes of the old: nothing is copied, nothing is lost, and calls that begin from now on get that one.
Those under way keep theirs. Only where an attribute itself has to be another one is there a second set of
them, made between two calls: the old version keeps its own, so to go back to it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from grym_nb.errors import StateError
from grym_nb.services.expectation import versions
from grym_nb.services.instance import Serving
from grym_nb.services.reload.attributes import attributes_of, copy_of, give, is_slotted
from grym_nb.services.reload.beside import NoRoom, discard, let_go, load_beside, take_over
from grym_nb.services.reload.change import Change, Newer, change_of, class_of, stale
from grym_nb.services.reload.history import begun, step
from grym_nb.services.reload.names import Name, bind, classes_of, forget, lent
from grym_nb.services.reload.probation import Probation
from grym_nb.services.reload.reached import names_of
from grym_nb.services.reload.renewal import renewed
from grym_nb.services.reload.smoke import Smoke, smoke
from grym_nb.services.reload.split import split
from grym_nb.services.retire import once_settled, quiet
from grym_nb.services.tiers import parked_in, there

if TYPE_CHECKING:
    from grym_nb.services.instance import Instance
    from grym_nb.services.places import Ticket
    from grym_nb.services.record import ServiceRecord
    from grym_nb.services.reload.heavy import Heavy
    from grym_nb.services.reload.report import Reload
    from grym_nb.services.reload.versions import Version
    from grym_nb.services.spec import ServiceSpec

__all__ = ["Edit", "in_words", "put_in_force", "take_back"]


class Edit:
    """Other code for one service: what it takes, seen and tried before it is put in force."""

    def __init__(
        self,
        record: ServiceRecord,
        asked: Callable[[ServiceSpec], ServiceSpec | None],
        newer: Newer,
        large: Sequence[Heavy] = (),
        world: Version | None = None,
    ) -> None:
        self.record = record
        self.asked = asked  # by the spec that is in force; None where that has the code already
        self.newer = newer
        self.world = world if record.spec.reached is not None else None  # what its code, from a cell, names
        self.names: tuple[Name, ...] = ()  # of the notebook, that are to stand for what is newer
        self.outdated: Sequence[str] = ()  # classes of the notebook, of a base that there is a newer one of
        self.report = begun(record)  # stands in the history from when this is in force
        self.large = large  # what was made anew beside it, and its state may hold as it was
        self.stays: tuple[str, ...] = ()  # what goes on with the old code
        self.under_way = 0
        self.is_quiet = False  # no call runs meanwhile
        self.share = 1.0  # of the calls, that it is to answer
        self.beside: ServiceRecord | None = None  # with what new code has loaded while the old serves
        self.no_room = ""  # why there is none
        self._gone: Instance | None = None  # what that took the place of
        self._jobs: list[Ticket] = []  # which its fresh slots let in
        self._ready: Serving | None = None  # what is to serve
        self.look()

    def look(self) -> None:
        """See what there is, once nobody loads or drains, and what it takes to put new code in its place."""
        record = self.record
        self.discard()  # for what was there by then
        until = record.ports.clock() + record.ports.settings.drain_seconds
        there = once_settled(
            record,
            until,
            f"reload of {record.name}",
            lambda: (record.spec, record.instance, parked_in(record), (record.version, record.code_version)),
        )
        self.base, self.instance, self.parked, self._before = there
        if self.parked is not None:
            self.instance = self.parked.instance  # no call runs in it, and it is not woken for this
        self._ready, self.number, self.is_placed = None, record.newest + 1, False
        self.names = ()
        self.change = Change()
        spec = self.asked(self.base)
        self.is_void = spec is None
        self.spec = spec or self.base
        if self.world is not None and not self.is_void:
            self.names, self.outdated = names_of(self.spec.callable, self.newer)
        self.base.differs(self.spec)  # which takes its time, and is known from here on
        if self.instance is not None and not self.is_void:
            self.change = change_of(self.base, self.spec, self.instance, self._newer)
            if not self.asks and (held := self._held()):
                self.change = Change(f"it holds what was made anew ({', '.join(held)})")
            if self.parked is not None and (self.asks or self._migrates(self.instance)):
                self.instance, self.parked, self.change = None, None, Change()

    def _held(self) -> list[str]:
        """Return what its state holds of what was made anew, but for what its `__init__` sets by now."""
        assert self.instance is not None
        state = _without(attributes_of(self.instance.model), set(self.change.others))
        return [name for one in self.large for name in one.held_by(state)]

    def _migrates(self, instance: Instance) -> bool:
        """Tell whether code of the author's is to see the state, which may count on the accelerator."""
        return hasattr(class_of(self.spec, instance.model, self._newer), "migrate")

    @property
    def asks(self) -> str:
        """Why its model has to be loaded anew; empty where it stays."""
        return self.change.asks

    def answer(self, share: float) -> None:
        """Have it answer only a share of the calls; raises where there is nothing for the rest of them."""
        if share < 1.0 and not all(name.is_function for name in self.names):
            raise StateError(
                f"the calls of {self.record.name} cannot be split: the notebook has a class by name",
                hint="in the cell, ask its module for it: `import boxes`, `boxes.Box()`",
                service=self.record.name,
            )
        if share < 1.0 and (self.instance is None or self.asks):
            raise StateError(
                f"the calls of {self.record.name} cannot be split: {self.asks or 'it is not loaded'}",
                hint="two versions on the same weights can share them; reload() puts all in force",
                service=self.record.name,
            )
        self.share = share

    def load(self) -> None:
        """Load what has to be loaded anew, beside the old one where there is room for both."""
        if self.asks and not all(name.is_function for name in self.names):
            self.no_room = "a class that the notebook has by name is bound anew before it loads"
        elif self.asks and self.instance is not None:
            try:
                with self._named():
                    self.beside = load_beside(self.record, self.spec, self.number)
            except NoRoom as why:
                self.no_room = str(why)

    def discard(self) -> None:
        """Let go of what was loaded and did not come to serve, and of what it took the place of."""
        self.finish()
        forget(self.names)
        made = self.beside
        if made is not None and not self.is_placed:
            self.beside = None
            discard(made)

    @property
    def version(self) -> str:
        """What the new version is called, whatever serves by now."""
        return self.spec.label or f"v{self.number}"

    def made(self) -> Serving:
        """Make the version that is to serve, of the attributes that are there now."""
        if self._ready is None:
            with step(self.report, "migrate"):
                self._ready = self._made()
        return self._ready

    def _made(self) -> Serving:
        assert self.instance is not None
        before = self.instance.serving
        made = object.__new__(class_of(self.spec, before.model, self._newer))
        serving = self._serving(made)
        serving.before = before
        state = attributes_of(before.model)
        shared = self.record.ports.weights.identities()
        renewal = renewed(state, self._newer, (before.model, serving.model), shared)
        self.stays = renewal.stays
        migrate = getattr(type(serving.model), "migrate", None)
        outdated = stale(before.spec, self.spec, (type(before.model), type(made)), state)
        own = {*renewal.own, *self.change.others, *outdated}
        if not own and migrate is None and not is_slotted(before.model) and not is_slotted(serving.model):
            object.__setattr__(serving.model, "__dict__", vars(before.model))
        else:
            serving.apart = frozenset({*own, *(state if migrate is not None else ())})
            for name in outdated:
                renewal.state.pop(name, None)
            if not is_slotted(serving.model):  # itself: what held the old one leads to it now
                object.__setattr__(serving.model, "__dict__", renewal.state)
                give(serving.model, self.change.others)
            else:
                give(serving.model, {**renewal.state, **self.change.others})
            if migrate is not None:
                given = serving.model.migrate(attributes_of(serving.model), before.version)
                if given is not None:
                    give(serving.model, given, all_of_it=True)
        return serving

    def tried(self) -> Smoke:
        """Ping the new code, and give it the last calls that went well, on a copy of the attributes."""
        assert self.instance is not None
        if self.beside is not None:
            there = self.beside.instance
            assert there is not None
            model = copy_of(there.model)
            with self._named():
                return smoke(self.beside, there, self._on_trial(model), before=self.record)
        made = self.made()
        model = made.model if made.apart is not None else copy_of(made.model)
        self._add_news(model)
        with self._named():
            return smoke(self.record, self.instance, self._on_trial(model))

    def _named(self) -> AbstractContextManager[None]:
        """Have functions that the notebook has by name be what is newer where that is tried."""
        return lent(self.names, self.world, self.record._family.codebase.versions)

    @property
    def untried(self) -> str:
        """Why it cannot be tried before it serves; empty where it can."""
        if self.parked is not None:
            return "it is parked"
        classes = sorted({name.name for name in self.names if not name.is_function})
        return f"the notebook has {', '.join(classes)} by name, for all calls" if classes else ""

    def _on_trial(self, model: Any) -> Serving:
        spec = self.spec if self.world is None else replace(self.spec, world=self.world)
        return Serving(model, self.version, self.number, spec)

    def _serving(self, model: Any) -> Serving:
        return Serving(model, self.version, self.number, self.spec)

    @property
    def is_gone(self) -> bool:
        """Whether the model is not there any more for which it was to be."""
        if self.parked is not None:
            return self.record.footprint.parked is not self.parked
        there = self.record.instance
        if self.beside is not None and there is self.beside.instance:
            return False  # it serves already: the first go was cut short
        return there is not self.instance

    def needs_quiet(self) -> bool:
        """Tell whether no call may run as it is put in place: attributes are copied then."""
        made = self._made_if_there()
        return made is not None and made.apart is not None

    def _made_if_there(self) -> Serving | None:
        """Return the version that is to serve; None where there is no model for it, or not any more."""
        if self.instance is None or self.asks:
            return None
        try:
            return self.made()
        except Exception:
            if self.is_gone:
                return None
            raise

    def remake(self) -> None:
        """Make the version that is to serve of what is there now: no call runs any more that changes it."""
        self._ready = None
        self.made()

    def keep_world(self) -> None:
        """Have the versions so far, and calls under way, go on with the modules as they are."""
        if self.world is None or self.is_placed:
            return  # code from a file has its own
        newest = self.record._family.codebase.versions.newest
        servings = () if self.instance is None else tuple(self.instance.versions)
        for spec in (self.base, *(serving.spec for serving in servings)):
            spec.keep_world(newest)

    def put(self, *, on_probation: bool = True) -> bool:
        """Have calls that begin from now on answered by the new code; False where something came between.

        Held for as long as it takes to put one pointer in the place of another. Done twice, it is done once:
        what Ctrl-C cuts short is put right by that.
        """
        record, instance = self.record, self.instance
        serving = self._made_if_there()
        if serving is not None and on_probation and serving.probation is None and not self.is_placed:
            serving.probation = Probation(record.ports.clock(), serving.tasks)  # before its first call
        if serving is not None and not self.is_placed:
            split(serving, serving.before, self.share)
        gone: list[Serving] = []
        with record.lock:
            if self.is_placed:
                return True
            if self.is_gone or not (record.spec is self.base or record.spec is self.spec):
                return False
            if record.lifecycle.state == "loading" or (record.drain is not None and not self.is_quiet):
                return False
            self._tell()
            self.spec.keep_names(self.names)
            if self.world is not None:
                bind(self.names, self.world.number, record._family.codebase.versions)
            record.adopt(self.spec, number=self.number, report=self.report)
            record.specs[min(record.specs)].keep_names(())  # nothing goes back beyond it
            if serving is not None and instance is not None:
                serving.version = record.version
                self._add_news(serving.model)
                record.footprint.versions = versions(record)  # the weights are what they were
                self.under_way = len(record.lane.frames())
                if serving not in instance.versions:
                    instance.versions.append(serving)
                if self.parked is not None:
                    self.parked.versions = self.number, record.config_version
                instance.serving = serving  # the last: what is cut short before it, the second go does
            elif self.beside is not None:
                self.under_way = len(record.lane.frames())
                self._gone = instance
                take_over(record, self.beside, self._jobs)
            self.is_placed = True
            if instance is not None:
                gone = instance.trim(record.ports.settings.versions_kept)
        del gone  # not under the lock: what is in it may have finalizers
        return True

    def finish(self) -> None:
        """Start what fresh slots let in, and let go of the model that served before; does nothing twice."""
        self.record.lane.start(self._jobs)  # twice is once: a job has one claimant
        self._jobs = []
        if self._gone is not None:
            let_go(self.record, self._gone)
        self._gone = None

    def _tell(self) -> None:
        """Say in the report what is about to be in force."""
        report = self.report
        (report.before, number), report.after = self._before, self.version
        report.numbers = number, self.number
        loads = self.instance is None or bool(self.asks)
        report.how = "loaded" if self.beside is not None else "at load" if loads else "in place"
        report.share = 1.0 if loads else self.share

    def told(self) -> Iterator[str]:
        """Say which attributes are there that were not, or have another value."""
        if self.instance is not None and self.change.news:
            yield f"new attributes: {', '.join(self.change.news)}, as `__init__` sets them"
        if self.instance is not None and self.change.others:
            yield f"set otherwise: {', '.join(self.change.others)}, as `__init__` does now"

    def _newer(self, thing: Any) -> Any:
        instance = self.instance
        if instance is not None and thing is type(instance.model):
            return self.spec.made_class or self.newer(thing)
        return self.newer(thing)

    def _add_news(self, model: Any) -> None:
        for name, value in self.change.news.items():
            if not hasattr(model, name):
                object.__setattr__(model, name, value)


def put_in_force(
    edits: Sequence[Edit], publish: Callable[[], None], *, on_probation: bool = True
) -> list[Edit]:
    """Put all of them in force; returns those before which somebody else came, to be looked at again.

    What can go wrong does so before anything is in force. Ctrl-C leaves all of it in force, or nothing.
    """
    with ExitStack() as silence:
        for edit in edits:
            edit.is_quiet = False
            if edit.needs_quiet():
                assert edit.instance is not None
                edit.record.refuse_from_within("reload", waits=False)
                with step(edit.report, "drain"):
                    edit.is_quiet = silence.enter_context(
                        quiet(edit.record, edit.instance, edit.base, "new code")
                    )
                if edit.is_quiet:
                    edit.remake()

        def put() -> list[Edit]:
            for edit in edits:
                edit.keep_world()
            publish()
            return [edit for edit in edits if not edit.put(on_probation=on_probation)]

        try:
            return put()
        except BaseException:
            put()  # what Ctrl-C has cut short
            raise
        finally:
            for edit in edits:
                edit.finish()
                forget(edit.names)


def take_back(record: ServiceRecord, gone: Serving, back: Serving, report: Reload) -> bool:
    """Have an earlier version serve again, also one that is parked; False where `gone` does not by now."""
    back.spec.differs(record.spec)  # which takes its time, and is known from here on

    def put() -> bool:
        with record.lock:
            instance, parked = there(record), record.footprint.parked
            if instance is None or instance.serving is not gone or back.model is None:
                return False
            _carry_back(gone, back)
            with classes_of(record.specs, back.number) as classes:
                record.adopt(record.spec.with_code_of(back.spec), number=back.number, report=report)
            report.notes += in_words(classes)
            record.footprint.versions = versions(record)
            if parked is not None and parked.instance is instance:
                parked.versions = back.number, record.config_version
            instance.serving = back  # the last: what is cut short before it, the second go does
        return True

    try:
        return put()
    except BaseException:
        put()  # what Ctrl-C has cut short
        raise


def in_words(classes: Sequence[str]) -> tuple[str, ...]:
    """Return a note of classes that the notebook has as before."""
    return (f"as before in the notebook, for all of it: {', '.join(classes)}",) if classes else ()


def _carry_back(gone: Serving, back: Serving) -> None:
    """Give an earlier version what has changed since in attributes that it has no others of."""
    own: set[str] = set()
    one: Serving | None = gone
    while one is not None and one is not back:
        own |= one.apart or set()
        one = one.before
    if one is back and own:
        there = attributes_of(gone.model)
        give(back.model, _without(there, own))


def _without(state: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in names}

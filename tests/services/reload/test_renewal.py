"""A state for other code: what leads to something changed is made anew, and all else is the very same."""

from __future__ import annotations

import contextlib
import enum
import functools
import itertools
import logging
import queue
import threading
import types
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grym_nb.events import EventBus
from grym_nb.services.reload.renewal import Renewal, renewed
from grym_nb.services.reload.walk import Walk


class Model:
    """The old model."""

    def say(self, *words: str) -> str:
        return " ".join(["old", *words])

    def gone(self) -> str:
        return "gone"

    @classmethod
    def made(cls) -> type:
        return cls

    @staticmethod
    def alone() -> str:
        return "old"

    loud = functools.partialmethod(say, "loud")

    @functools.cache  # noqa: B019
    def kept(self) -> str:
        return "old"

    def stream(self) -> Iterator[str]:
        yield "old"
        yield "old"

    async def wait(self) -> str:
        return "old"


class NewModel:
    """The same after an edit."""

    def say(self, *words: str) -> str:
        return " ".join(["new", *words])

    @classmethod
    def made(cls) -> type:
        return cls

    @staticmethod
    def alone() -> str:
        return "new"

    loud = functools.partialmethod(say, "loud")

    @functools.cache  # noqa: B019
    def kept(self) -> str:
        return "new"


class Part:
    """A class that is changed."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def say(self) -> str:
        return "old"

    def free(self) -> str:
        return "old"


class NewPart:
    def say(self) -> str:
        return "new"

    def free(self) -> str:
        return "new"


class Holder:
    """A class that is not changed."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def held(self) -> Any:
        return self


def old_function(whole: object = None) -> str:
    return "old"


def new_function(whole: object = None) -> str:
    return "new"


def old_stream() -> Iterator[int]:
    yield 1
    yield 2


NEWER: dict[Any, Any] = {
    Model: NewModel,
    Part: NewPart,
    old_function: new_function,
    old_stream: new_function,
}


def by_identity(pairs: Mapping[Any, Any]) -> Callable[[Any], Any]:
    known = {id(old): (old, new) for old, new in pairs.items()}
    return lambda made: known.get(id(made), (None, None))[1]


class Change:
    """A model, its state, and what comes of it."""

    def __init__(self, pairs: Mapping[Any, Any] | None = None, *, apart: tuple[object, ...] = ()) -> None:
        self.old, self.new = Model(), object.__new__(NewModel)
        self.pairs = {**NEWER, **(pairs or {})}
        self.apart = apart

    def __call__(self, **state: Any) -> Any:
        vars(self.old).update(state)
        before = snapshot(self.old)
        self.renewal: Renewal = renewed(
            vars(self.old),
            by_identity(self.pairs),
            (self.old, self.new),
            [id(one) for one in self.apart],
        )
        assert snapshot(self.old) == before, "the old state is as it was"
        vars(self.new).update(self.renewal.state)
        return self.new

    @property
    def stays(self) -> tuple[str, ...]:
        return self.renewal.stays


def snapshot(root: object) -> list[tuple[int, list[int]]]:
    """Return all that can be reached by plain means, each with what is in it, by identity."""
    seen: dict[int, object] = {}
    found, waiting = [], [root]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        within: list[object] = []
        if isinstance(part, dict):
            within += [one for pair in dict.items(part) for one in pair]
        elif isinstance(part, (list, tuple, deque, set, frozenset)):
            within += part
        if isinstance(getattr(type(part), "__dict__", {}).get("__slots__"), (tuple, list)):
            within += [getattr(part, name, None) for name in type(part).__slots__]  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):
            within += object.__getattribute__(part, "__dict__").values()
        if isinstance(part, (type, types.ModuleType)):
            within = []
        found.append((id(part), [id(one) for one in within]))
        waiting += within
    return sorted(found)


# -- nothing, or the least ------------------------------------------------------------------------


def test_a_state_that_leads_to_nothing_changed_can_be_shared() -> None:
    change = Change()
    state = {"cache": {"a": [1, 2]}, "tokenizer": Holder(words=["x"]), "lock": threading.Lock()}
    new = change(**state)
    assert change.renewal == Renewal(vars(change.old), frozenset(), 0, ())
    assert all(vars(new)[name] is value for name, value in state.items())
    assert change.renewal.state is not vars(change.old)


def test_only_what_is_on_the_way_to_something_changed_is_made_anew() -> None:
    aside, cache, part = Holder(), {"big": [1]}, Part(weights=[1.0])
    holder = Holder(parts=[part, aside], cache=cache)
    change = Change()
    new = change(holder=holder, cache=cache)
    assert new.cache is cache and new.holder is not holder and type(new.holder) is Holder
    assert new.holder.cache is cache and new.holder.parts[1] is aside
    assert type(new.holder.parts[0]) is NewPart and new.holder.parts[0].weights is part.weights  # type: ignore[attr-defined]
    assert (change.renewal.own, change.renewal.made, change.stays) == ({"holder"}, 3, ())


def test_the_old_model_in_its_own_state_becomes_the_new_one() -> None:
    change = Change()
    net = Holder()
    net.owner, net.again = change.old, [change.old]  # type: ignore[attr-defined]
    new = change(net=net, me=change.old, dictionary=vars(change.old))
    assert new.net.owner is new and new.net.again == [new] and new.me is new
    assert new.dictionary is change.renewal.state


def test_a_model_of_an_unchanged_class_is_still_another_one() -> None:
    change = Change()
    change.new = Model()  # type: ignore[assignment]
    new = change(me=change.old, say=change.old.say, part=Part())
    assert new.me is new and new.say.__self__ is new and type(new.part) is NewPart
    assert renewed({"new": new, "x": [new]}, by_identity({}), (change.old, new)).own == frozenset()


def test_what_was_one_object_is_one_object() -> None:
    part, shared = Part(), [1]
    part.me, part.shared = part, shared  # type: ignore[attr-defined]
    new = Change()(a=part, b=[part, part], c={"x": part}, d=shared)
    assert new.a is new.b[0] is new.b[1] is new.c["x"] is new.a.me and new.a.shared is new.d is shared


def test_circles_end() -> None:
    circle: list[Any] = [Part()]
    pair = (circle,)
    circle += [pair, circle]
    held: dict[Any, Any] = {"pair": pair}
    held["me"] = held
    new = Change()(circle=circle, held=held)
    assert new.circle[1][0] is new.circle is new.circle[2] and type(new.circle[0]) is NewPart
    assert new.held["me"] is new.held and new.held["pair"] is new.circle[1] and new.circle is not circle


def test_circles_end_wherever_they_begin() -> None:
    """A tuple, a frozenset or a partial cannot be there before what is in it."""
    listed: list[Any] = [Part()]
    pair = (listed, 1)
    call = functools.partial(len, pair)
    frozen = Frozen(call)
    listed += [pair, frozen]
    holder = Holder(frozen=frozen)
    new = Change()(pair=pair, call=call, frozen=frozen, listed=listed, holder=holder)
    assert new.pair[0] is new.listed and new.listed[1] is new.pair and new.listed[2] is new.frozen
    assert new.frozen.part is new.call and new.call.args[0] is new.pair and new.holder.frozen is new.frozen
    assert new.pair is not pair and type(new.listed[0]) is NewPart and len(new.listed) == 3


def test_what_leads_to_itself_alone_is_made_anew_too() -> None:
    change = Change()
    call = functools.partial(change.old.say, "x")
    call.me, call.keys = call, {Frozen(call): 1}  # type: ignore[attr-defined]
    new = change(call=call)
    assert new.call is new.call.me and new.call() == "new x" and call.me is call  # type: ignore[attr-defined]
    assert next(iter(new.call.keys)).part is new.call and change.stays == ()
    part = Part()
    part.among = {part, frozenset([part])}  # type: ignore[attr-defined]
    new = Change()(part=part)
    assert new.part.among == {new.part, frozenset([new.part])}


# -- containers -----------------------------------------------------------------------------------

Pair = namedtuple("Pair", "a b")


class Names(list[Any]):
    pass


class Table(dict[str, Any]):
    pass


class AttrDict(dict[str, Any]):
    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.__dict__ = self


class Tag(str):
    pass


class NewTag(str):
    pass


def test_every_container_keeps_its_class_and_its_order() -> None:
    part = Part()
    ordered = OrderedDict(a=1, b=part, c=3)
    ordered.move_to_end("a")
    names, table = Names([part]), Table(a=part)
    names.said = table.said = part  # type: ignore[attr-defined]
    counted: defaultdict[str, Any] = defaultdict(list, a=part)
    new = Change()(
        ordered=ordered,
        counted=counted,
        names=names,
        table=table,
        last=deque([part, 1], maxlen=2),
        pair=Pair(part, 2),
        some={part, 1},
        frozen=frozenset([part, 1]),
        view=types.MappingProxyType({"a": part}),
        space=types.SimpleNamespace(a=part),
        users=UserDict(a=part),
        keys={part: 1, "x": 2},
        names_of=AttrDict(a=part),
    )
    one = new.names[0]
    assert type(one) is NewPart and new.ordered == OrderedDict(b=one, c=3, a=1)
    assert [*new.ordered] == ["b", "c", "a"] and type(new.ordered) is OrderedDict
    assert new.counted == {"a": one} and new.counted["new"] == [] and "new" not in counted
    assert type(new.names) is Names and type(new.table) is Table and new.names.said is new.table.said is one
    assert new.last == deque([one, 1]) and new.last.maxlen == 2
    assert new.pair == Pair(one, 2) and type(new.pair) is Pair
    assert new.some == {one, 1} and new.frozen == {one, 1} and type(new.frozen) is frozenset
    assert dict(new.view) == {"a": one} and type(new.view) is types.MappingProxyType
    assert new.space.a is new.users["a"] is one and type(new.space) is types.SimpleNamespace
    assert new.keys == {one: 1, "x": 2}
    assert new.names_of.a is one and vars(new.names_of) is new.names_of


def test_a_default_factory_that_is_changed_makes_what_is_new() -> None:
    new = Change()(parts=defaultdict(Part, a=1))
    assert type(new.parts["b"]) is NewPart and new.parts["a"] == 1


def test_instances_of_changed_classes_of_values_and_containers_keep_what_they_hold() -> None:
    class NewNames(list[Any]):
        pass

    class Both(tuple[Any, ...]):
        pass

    class NewBoth(tuple[Any, ...]):
        pass

    tag, both = Tag("x"), Both([1, 2])
    tag.note = both.note = "kept"  # type: ignore[attr-defined]
    change = Change({Names: NewNames, Tag: NewTag, Both: NewBoth})
    new = change(names=Names([1, 2]), tag=tag, tags={tag: 1}, both=both, plain=["x"])
    assert (type(new.names), [*new.names]) == (NewNames, [1, 2])
    assert (type(new.tag), new.tag, new.tag.note) == (NewTag, "x", "kept")
    assert type(next(iter(new.tags))) is NewTag and change.stays == ()
    assert (type(new.both), new.both, new.both.note) == (NewBoth, (1, 2), "kept")


def test_a_tuple_with_other_names_stays() -> None:
    other = namedtuple("other", "b a c")
    change = Change({Pair: other})
    pair = Pair(1, 2)
    assert change(pair=pair).pair is pair
    assert change.stays == ("pair: an instance of the older Pair, which cannot be made anew",)


# -- objects --------------------------------------------------------------------------------------


class Slotted:
    __slots__ = ("__hidden", "a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a
        self.__hidden = a


@dataclass(frozen=True)
class Frozen:
    part: Any
    rest: list[int] = field(default_factory=list, hash=False)


@dataclass(frozen=True, slots=True)
class Thin:
    part: Any


def test_slots_and_frozen_dataclasses_are_made_anew_without_their_init() -> None:
    part = Part()
    slotted, frozen = Slotted(part), Frozen(part)
    new = Change()(slotted=slotted, frozen=frozen, thin=Thin(part), keys={frozen: 1})
    one = new.slotted.a
    assert type(one) is NewPart and new.slotted._Slotted__hidden is one and not hasattr(new.slotted, "b")
    assert new.frozen.part is one and new.frozen.rest is frozen.rest and new.thin == Thin(one)
    assert new.keys == {Frozen(one): 1} and frozen.part is part


def test_attributes_find_their_place_in_the_newer_class() -> None:
    class NewSlotted:
        __slots__ = ("a",)

    class Loose:
        pass

    class Tight:
        __slots__ = ("a", "b")

    slotted, loose = Slotted(1), Holder(a=1, b=2)
    change = Change({Slotted: NewSlotted, Holder: Tight})
    new = change(slotted=slotted, loose=loose)
    assert new.slotted.a == 1 and (new.loose.a, new.loose.b) == (1, 2) and type(new.loose) is Tight
    assert change.stays == ("slotted: the new NewSlotted has no place for _Slotted__hidden",)
    wide = Change({Slotted: Loose})(slotted=slotted)
    assert vars(wide.slotted) == {"a": 1, "_Slotted__hidden": 1}


def test_a_dictionary_that_somebody_has_stays_that_of_its_object() -> None:
    part = Part(x=1)
    new = Change()(part=part, variables=vars(part))
    assert vars(new.part) is new.variables and new.variables == {"x": 1} and new.variables is not vars(part)


def test_what_has_another_layout_or_is_abstract_by_now_stays() -> None:
    class Abstract(ABC):
        @abstractmethod
        def do(self) -> None: ...

    class Listed(list[Any]):
        pass

    class Failed(Exception):
        pass

    holder, part, failed = Holder(), Part(), Failed("x")
    change = Change({Holder: Abstract, Part: Listed, Failed: Exception})
    new = change(holder=holder, parts=[part], failed=failed, say=part.say)
    assert new.holder is holder and new.parts == [part] and new.failed is failed
    assert change.stays[0].startswith("holder: an older Holder, which cannot be made anew (Can")
    assert set(change.stays[1:]) == {
        "failed: an instance of the older Failed, which cannot be made anew",
        "parts[0]: an instance of the older Part, which cannot be made anew",
    }


def test_a_class_made_from_an_older_one_is_told() -> None:
    made_later = type("Later", (Part,), {})
    later = made_later()
    change = Change()
    assert change(later=later).later is later
    assert change.stays == ("later: a Later, which is made from the older Part",)
    later.part = Part()
    change = Change()
    new = change(later=later)
    assert type(new.later) is made_later and type(new.later.part) is NewPart and len(change.stays) == 1


def test_what_ends_something_when_it_goes_stays() -> None:
    """The old one goes some day, and would close what the new one has as well."""
    ended: list[Any] = []

    class Ending:
        def __del__(self) -> None:
            ended.append(self.part)  # type: ignore[attr-defined]

    ending, finalized = Ending(), Part()
    ending.part = Part()  # type: ignore[attr-defined]
    weakref.finalize(finalized, ended.append, finalized.say.__name__).atexit = False
    change = Change({Ending: NewPart})
    new = change(ending=ending, holder=Holder(finalized=finalized))
    assert new.ending is ending and new.holder.finalized is finalized and ended == []
    assert change.stays == (
        "ending: an Ending that ends something when it goes, and so cannot be made anew",
        "holder.finalized: a Part that ends something when it goes, and so cannot be made anew",
    )


# -- functions, methods, classes, members ---------------------------------------------------------


def test_functions_and_classes_give_way_to_newer_ones() -> None:
    new = Change()(say=old_function, kind=Part, both=(old_function, len), method=Part.say, many=[Model])
    assert (new.say, new.kind, new.both) == (new_function, NewPart, (new_function, len))
    assert new.method is NewPart.say and new.many == [NewModel]


def test_a_static_method_is_that_of_the_newer_class() -> None:
    change = Change()
    new = change(alone=change.old.alone, made=change.old.made)
    assert new.alone() == "new" and new.made() is NewModel and change.stays == ()


def test_bound_methods_are_bound_to_the_new_one_by_name() -> None:
    change = Change()
    old, part, holder = change.old, Part(), Holder()
    holder.part = part  # type: ignore[attr-defined]
    new = change(
        say=old.say,
        part=part,
        parts=[part.say],
        table={"say": old.say},
        later=functools.partial(functools.partial(old.say, "a"), "b"),
        loud=old.loud.func if isinstance(old.loud, functools.partial) else old.loud,
        kept=old.kept,
        held=holder.held,
        free=types.MethodType(old_function, part),
        other=types.MethodType(old_function, Holder()),
    )
    assert new.say("x") == "new x" and new.say.__self__ is new
    assert new.parts[0]() == "new" and new.parts[0].__self__ is new.part
    assert new.table["say"]() == "new" and new.later("c") == "new a b c"
    assert new.loud("x") == "new loud x" or new.loud("x") == "new x"
    assert new.kept() == "new" and type(new.held().part) is NewPart
    assert new.free() == "new" and new.free.__self__ is new.part and new.other() == "new"
    assert old.say("x") == "old x" and change.stays == ()


def test_a_method_is_taken_from_the_class_not_from_the_object() -> None:
    """What was wrapped and put in its own place would else be bound to itself."""
    change = Change()
    new = change(plain=change.old.say, say=functools.partial(change.old.say, "wrapped"))
    assert new.plain() == "new" and new.say() == "new wrapped"


def test_what_super_gave_is_the_one_further_down() -> None:
    class Lower(Part):
        def say(self) -> str:
            return "lower"

        def below(self) -> Any:
            return super().say

    class NewLower(NewPart):
        def say(self) -> str:
            return "new lower"

    lower = Lower()
    change = Change({Lower: NewLower})
    new = change(lower=lower, below=lower.below(), say=lower.say)
    assert new.below() == "new" and new.say() == "new lower" and new.below.__self__ is new.lower


def test_a_method_that_is_gone_stays_and_is_told() -> None:
    change = Change()
    gone = change.old.gone
    assert change(hooks=[gone]).hooks[0] is gone
    assert change.stays == ("hooks[0]: a method that the new NewModel does not have: gone",)


def test_a_method_that_became_a_property_stays() -> None:
    class Changed:
        say = property(lambda self: 1 / 0)

    part = Part()
    change = Change({Part: Changed})
    new = change(part=part, say=part.say)
    assert (
        new.say.__self__ is part and "say: a method that the new Changed does not have: say" in change.stays
    )


def test_methods_of_containers_are_those_of_the_new_ones() -> None:
    items = [Part()]
    new = Change()(items=items, add=items.append, length=items.__len__)
    new.add(1)
    assert len(new.items) == 2 and len(items) == 1


def test_a_partial_with_attributes_keeps_them() -> None:
    change = Change()
    call = functools.partial(change.old.say, "x")
    call.note = [change.old]  # type: ignore[attr-defined]
    new = change(call=call)
    assert new.call() == "new x" and new.call.note == [new]


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class NewColour(enum.Enum):
    RED = 3


class Rights(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class NewRights(enum.Flag):
    WRITE = 1
    READ = 2


def test_members_are_those_of_the_same_name() -> None:
    change = Change({Colour: NewColour, Rights: NewRights})
    new = change(
        red=Colour.RED,
        by={Colour.RED: 1},
        green=Colour.GREEN,
        rights=[Rights.READ, Rights.READ | Rights.WRITE, Rights(0), Rights.READ | Rights.RUN],
    )
    assert new.red is NewColour.RED and new.by == {NewColour.RED: 1} and new.green is Colour.GREEN
    read, both, none, run = new.rights
    assert (read, both, none) == (NewRights.READ, NewRights.READ | NewRights.WRITE, NewRights(0))
    assert run == Rights.READ | Rights.RUN
    assert change.stays == (
        "green: a member that the new Colour does not have",
        "rights[3]: a member that the new Rights does not have",
    )


# -- what stays -----------------------------------------------------------------------------------


def test_closures_stay_and_are_told() -> None:
    change = Change()
    old, part = change.old, Part()

    def hook() -> str:
        return old.say()

    def harmless() -> int:
        return len(NEWER)

    def by_default(of: Any = part) -> str:
        return str(of.say())

    def by_class() -> Any:
        return kind

    def by_function() -> Any:
        return function

    kind, function = Part, old_function
    new = change(
        net=Holder(hooks={0: hook}), fine=harmless, default=by_default, cls=by_class, made=by_function
    )
    assert new.net.hooks[0] is hook and new.net is vars(old)["net"] and change.renewal.own == frozenset()
    assert change.stays == (
        "default: a function that has an instance of the older Part in a variable",
        "cls: a function that has the older Part in a variable",
        "made: a function that has the older old_function in a variable",
        "net.hooks[0]: a function that has the old model in a variable",
    )


def test_threads_and_timers_stay_and_are_told() -> None:
    change = Change()
    timer = threading.Timer(60.0, change.old.say)
    thread = threading.Thread(target=lambda: None, args=([change.old],))
    idle = threading.Thread(target=len)
    new = change(timer=timer, threads=[thread], idle=idle)
    assert new.timer is timer and new.threads == [thread] and change.renewal.own == frozenset()
    assert change.stays == (
        "timer: a thread that runs a method of the old model",
        "threads[0]: a thread that runs a list",
    ) or set(change.stays) == {
        "timer: a thread that runs a method of the old model",
        "threads[0]: a thread that runs a tuple",
    }


def test_a_thread_of_a_changed_class_stays_and_is_told() -> None:
    class Worker(threading.Thread):
        pass

    class NewWorker(threading.Thread):
        pass

    worker = Worker()
    change = Change({Worker: NewWorker})
    assert change(worker=worker).worker is worker
    assert change.stays == ("worker: an instance of the older Worker, which cannot be made anew",)


def test_what_is_of_this_house_is_never_made_anew() -> None:
    """A bus or a store that calls the model is everybody's."""
    change = Change()
    bus = EventBus()
    bus.subscribe(change.old.say)  # type: ignore[arg-type]
    assert change(bus=bus).bus is bus and change.renewal.own == frozenset()
    assert len(change.stays) == 1 and change.stays[0].startswith("bus")


def test_what_others_wait_at_stays_and_is_told() -> None:
    change = Change()
    waiting: queue.Queue[Any] = queue.Queue()
    waiting.put(change.old)
    future: Future[Any] = Future()
    future.add_done_callback(change.old.say)  # type: ignore[arg-type]
    stack = contextlib.ExitStack()
    stack.callback(change.old.say)
    change(
        waiting=waiting,
        future=future,
        stack=stack,
        steps=itertools.cycle([change.old.say]),
        each=map(change.old.say, "ab"),
        cached=functools.cache(change.old.say),
        length=[Part()].__len__,
        event=threading.Event(),
        log=logging.getLogger("x"),
    )
    assert {line.partition(":")[0] for line in change.stays} == {
        *("waiting", "future", "stack._exit_callbacks[0][1]", "steps(...)", "each", "cached", "length")
    }
    assert (
        all(" leads to " in line or " has " in line for line in change.stays)
        and change.renewal.own == frozenset()
    )


def test_generators_of_older_code_are_told_and_not_touched() -> None:
    change = Change()
    running, module_level, done = change.old.stream(), old_stream(), old_stream()
    list(done)
    waiting = change.old.wait()
    fine = (one for one in "ab")
    new = change(streams=[running, module_level], done=done, waiting=waiting, fine=fine)
    assert new.streams == [running, module_level] and next(running) == "old" and next(module_level) == 1
    assert set(change.stays) == {
        "streams[0]: a generator that runs older code (Model.stream)",
        "streams[1]: a generator that runs older code (old_stream)",
        "waiting: a coroutine that runs older code (Model.wait)",
    }
    waiting.close()


def test_generators_of_classes_that_no_module_has_are_known_by_their_code() -> None:
    class Local:
        @contextlib.contextmanager
        def _managed(self) -> Iterator[None]:
            yield

        def stream(self) -> Iterator[int]:
            yield 1

    local = Local()
    change = Change({Local: NewPart})
    change(local=local, stream=local.stream(), managed=local._managed().gen)  # type: ignore[attr-defined]
    assert len(change.stays) == 2 and all("Local." in line for line in change.stays)


def test_weak_references_follow_where_nobody_is_called_by_them() -> None:
    change = Change()
    part, elsewhere = Part(), Part()
    child = Holder(
        owner=weakref.ref(change.old), part=weakref.ref(part), aside=weakref.ref(child_of := Holder())
    )
    new = change(
        child=child,
        part=part,
        method=weakref.WeakMethod(change.old.say),
        called=weakref.ref(part, lambda _: None),
        lost=weakref.ref(elsewhere),
        dead=weakref.ref(Holder()),
        proxy=weakref.proxy(change.old),
        one=weakref.proxy(part),
        table=weakref.WeakValueDictionary(a=part),
    )
    assert new.child.owner() is new and new.child.part() is new.part and new.child.aside() is child_of
    assert child.owner() is change.old and child.part() is part  # type: ignore[attr-defined]
    assert {line for line in change.stays if "data" not in line} == {
        "method: a WeakMethod of the old model",
        "called: a ReferenceType of an instance of the older Part",
        "lost: a weak reference to a Part that only others hold",
        "proxy: a ProxyType that leads to the old model",
        "one: a ProxyType that leads to an instance of the older Part",
    }


def test_the_old_model_may_be_known_by_weak_references_alone() -> None:
    change = Change()
    assert change(owner=weakref.ref(change.old)).owner() is change.new and change.stays == ()
    change = Change()
    change(owner=weakref.proxy(change.old))
    assert change.stays == ("owner: a ProxyType that leads to the old model",)


def test_a_weak_reference_does_not_keep_what_only_a_thread_holds() -> None:
    part = Part()
    ref, thread = weakref.ref(part), threading.Thread(target=len, args=(part,))
    change = Change()
    new = change(ref=ref, thread=thread)
    assert new.ref() is part and any("only others hold" in line for line in change.stays)


def test_what_is_shared_with_others_is_never_touched() -> None:
    inner = Part()
    shared = Holder(inner=inner, again=[inner])
    change = Change(apart=(shared,))
    own = Part()
    shared.model = change.old  # type: ignore[attr-defined]
    new = change(shared=shared, inner=inner, parts=[inner], own=[own])
    assert new.shared is shared and new.inner is inner and new.parts[0] is inner
    assert type(new.own[0]) is NewPart and change.renewal.own == {"own"}
    assert change.stays == ("shared: a Holder, shared with other services, that is or leads to older code",)
    fine = Holder(a=1)
    change = Change(apart=(fine, old_function))
    assert change(fine=fine, say=old_function).say is new_function and change.stays == ()


# -- how much, how deep, who ----------------------------------------------------------------------


def test_a_chain_of_ten_thousand_is_no_stack_of_calls() -> None:
    chain: Any = Part()
    for at in range(10_000):
        chain = Holder(next=chain) if at % 2 else [chain]
    change = Change()
    new = change(chain=chain)
    part = new.chain
    for _ in range(10_000):
        part = part[0] if type(part) is list else part.next
    assert type(part) is NewPart and change.renewal.made == 10_001
    told = Change()
    told(chain=Holder(a=[{"k": (Holder(b=[[[[[[told.old.gone]]]]]]),)}]))
    assert told.stays[0].startswith("chain.a[0]['k'] ... [0][0]") or " ... " in told.stays[0]


def walk_of(**state: Any) -> Walk:
    walk = Walk(state, by_identity(NEWER), (Model(), object.__new__(NewModel)))
    walk.look()
    return walk


def test_plain_values_cost_nothing() -> None:
    """No part is noted for any of them, and no code of ours runs per value."""
    walk = walk_of(numbers=list(range(100_000)), names={str(at): at for at in range(1000)}, text="x")
    assert len(walk.parts) == 3


def test_a_list_with_one_other_thing_is_looked_into() -> None:
    new = Change()(numbers=[*range(1000), Part()])
    assert type(new.numbers[-1]) is NewPart and new.numbers[:1000] == list(range(1000))


def test_beyond_a_number_of_objects_it_says_so() -> None:
    old = Model()
    state = {"many": [[at] for at in range(100)], "part": Part()}
    walk = Walk(state, by_identity(NEWER), (old, object.__new__(NewModel)), (), 50)
    walk.look()
    walk.mark()
    assert walk.lines({}) == ("what is beyond the 50 nearest objects: nobody has looked at it",)
    assert len(walk.parts) == 50 and walk.marked


def test_the_way_to_what_stays_is_told() -> None:
    """By names and keys where there are any."""
    change = Change()
    gone = [types.MethodType(Model.gone, change.old) for _ in range(9)]

    def inner() -> Any:
        return gone[0]

    def outer() -> Any:
        return inner

    class Few:
        __slots__ = ("a", "b")

    aside = [types.MethodType(Model.gone, change.old)]
    few = Few()
    few.b = gone[1]  # type: ignore[attr-defined]
    change(
        outer=outer,
        few=few,
        keys={gone[2]: 1, 3: gone[3], (1,): gone[4]},
        some={gone[5]},
        call=functools.partial(len, gone[6]),
        view=types.MappingProxyType({"a": gone[7]}),
        cell=(lambda: aside).__closure__,
    )
    assert {line.partition(":")[0] for line in change.stays} == {
        *("few.b", "keys (a key)", "keys[3]", "keys[...]", "some{...}", "call.args[0]", "view(...)['a']"),
        *(*(f"outer (inner) (gone)[{at}]" for at in (0, 8)), "cell[0](...)[0]"),
    }


def test_an_empty_cell_has_nothing_in_it() -> None:
    def recursive() -> Any:
        return later

    walk = walk_of(recursive=recursive)
    later = 1
    assert walk.parts[1] is recursive and later


def test_a_part_that_changes_while_it_is_read_is_left_out() -> None:
    class Losing(dict[Any, Any]):
        __slots__ = ("slot",)

    state = {"never_set": Losing(a=Part())}
    assert type(Change()(**state).never_set["a"]) is NewPart


def test_a_member_that_its_own_class_refuses_stays() -> None:
    class Strict(enum.Flag):
        READ = 1

        @classmethod
        def _missing_(cls, value: object) -> Any:
            raise RuntimeError(value)

    change = Change({Rights: Strict})
    assert change(none=Rights(0), read=Rights.READ).read is Strict.READ
    assert len(change.stays) <= 1


def test_a_weak_reference_to_what_can_have_none_any_more_stays() -> None:
    class Tight:
        __slots__ = ("x",)

    part = Part(x=1)
    ref = weakref.ref(part)
    change = Change({Part: Tight})
    new = change(part=part, ref=ref)
    assert type(new.part) is Tight and new.ref is ref
    assert change.stays == (
        "ref: an older ReferenceType, which cannot be made anew "
        "(cannot create weak reference to 'Tight' object)",
    )


def test_a_long_report_is_cut() -> None:
    change = Change()
    change(hooks=[types.MethodType(Model.gone, change.old) for _ in range(60)])
    assert len(change.stays) == 51 and change.stays[-1] == "and 10 more"


class Trap(type):
    def __hash__(cls) -> int:
        raise RuntimeError("hash")

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("eq")

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)

    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("instance")

    def __subclasscheck__(cls, subclass: type) -> bool:
        raise RuntimeError("subclass")


class Stranger(metaclass=Trap):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __iter__(self) -> Any:
        raise RuntimeError("iter")

    @property
    def __class__(self) -> Any:
        raise RuntimeError("class")


class OddDict(dict[Any, Any]):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __iter__(self) -> Any:
        raise RuntimeError("iter")

    def __len__(self) -> int:
        raise RuntimeError("len")


class OddProperty:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("dict")


def test_strangers_end_nothing() -> None:
    stranger = object.__new__(Stranger)
    object.__getattribute__(stranger, "__dict__")["part"] = Part()
    odd = OddDict()
    dict.__setitem__(odd, "part", Part())

    def newer(made: Any) -> Any:
        return NEWER.get(made, made)  # hashes it

    old = Model()
    state = {"one": stranger, "many": [stranger], "odd": odd, "kind": Stranger, "prop": OddProperty()}
    state["method"] = types.MethodType(old_function, stranger)
    renewal = renewed(state, newer, (old, object.__new__(NewModel)))
    new = renewal.state["one"]
    assert type(new) is Stranger and new is not stranger and renewal.state["many"][0] is new
    assert type(object.__getattribute__(new, "__dict__")["part"]) is NewPart
    assert type(dict.__getitem__(renewal.state["odd"], "part")) is NewPart
    assert renewal.state["prop"] is state["prop"] and renewal.state["kind"] is Stranger
    assert renewal.state["method"].__func__ is new_function and renewal.state["method"].__self__ is new
    assert renewal.stays == ()


class Moody:
    """Its instances can be hashed as long as they have a part; a newer class's cannot."""

    def __hash__(self) -> int:
        return hash(self.part)  # type: ignore[attr-defined]

    def __eq__(self, other: object) -> bool:
        return self is other


class Unhashable:
    __hash__ = None  # type: ignore[assignment]


def test_keys_that_cannot_be_hashed_stay() -> None:
    moody = Moody()
    moody.part = 1  # type: ignore[attr-defined]
    table, some, frozen = {moody: Part()}, {moody}, frozenset([moody])
    change = Change({Moody: Unhashable})
    new = change(table=table, some=some, frozen=frozen, moody=moody)
    assert [*new.table] == [moody] and type(new.table[moody]) is NewPart and new.some == {moody}
    assert new.frozen is frozen and type(new.moody) is Unhashable and len(change.stays) == 3
    del moody.part  # type: ignore[attr-defined]
    change = Change()
    assert change(table=table).table is table
    assert change.stays == ("table: a dict that leads to an instance of the older Part",)


# -- any state ------------------------------------------------------------------------------------

LEAVES = ("number", "text", "aside", "part", "model", "method", "function")


@st.composite
def states(draw: Callable[..., Any]) -> tuple[Change, dict[str, Any]]:
    """A state of containers in one another, with some things in several places."""
    change = Change()
    made: list[Any] = []

    def leaf(kind: str) -> Any:
        return {
            "number": 7,
            "text": "x",
            "aside": Holder(),
            "part": Part(n=1),
            "model": change.old,
            "method": change.old.say,
            "function": old_function,
        }[kind]

    for _ in range(draw(st.integers(1, 14))):
        sort = draw(st.sampled_from([*LEAVES, "list", "tuple", "dict", "set", "holder", "deque", "partial"]))
        if sort in LEAVES:
            made.append(leaf(sort))
            continue
        inner = (
            [made[draw(st.integers(0, len(made) - 1))] for _ in range(draw(st.integers(0, 3)))]
            if made
            else []
        )
        hashable = [one for one in inner if type(one) not in (list, dict, set, deque, tuple)]
        made.append(
            {
                "list": lambda inner=inner: [*inner],
                "tuple": lambda inner=inner: (*inner,),
                "dict": lambda inner=inner: {str(at): one for at, one in enumerate(inner)},
                "set": lambda hashable=hashable: {*hashable},
                "holder": lambda inner=inner: Holder(inner=inner),
                "deque": lambda inner=inner: deque(inner),
                "partial": lambda inner=inner: functools.partial(len, *inner),
            }[sort]()
        )
    lists = [one for one in made if type(one) is list]
    if lists and draw(st.booleans()):  # a circle
        lists[0].append(made[-1])
    return change, {f"a{at}": one for at, one in enumerate(made)}


def inside(part: Any) -> list[Any]:
    if type(part) in (list, tuple, deque):
        return [*part]
    if type(part) is dict:
        return [*part.values()]
    if type(part) is set:
        return sorted(part, key=lambda one: getattr(one, "n", 0) or id(type(one)))
    if type(part) is Holder:
        return [*vars(part).values()]
    if type(part) is functools.partial:
        return [part.func, part.args]
    return []


def leads(change: Change, part: Any, seen: set[int]) -> bool:
    if part is change.old or part is old_function or type(part) is Part:
        return True
    if type(part) is types.MethodType:
        return True
    if id(part) in seen:
        return False
    seen.add(id(part))
    within = [*part] if type(part) is set else inside(part)
    return any(leads(change, one, seen) for one in within)


@given(states())
def test_any_state_keeps_its_shape(made: tuple[Change, dict[str, Any]]) -> None:
    """Changed things are replaced, what leads to them is made anew once, and nothing else is."""
    change, state = made
    new = change(**state)
    assert change.stays == ()
    mapped: dict[int, Any] = {}
    waiting = [(value, vars(new)[name]) for name, value in state.items()]
    while waiting:
        was, now = waiting.pop()
        if id(was) in mapped:
            assert mapped[id(was)] is now
            continue
        mapped[id(was)] = now
        if was is change.old:
            assert now is new
        elif was is old_function:
            assert now is new_function
        elif type(was) is types.MethodType:
            assert now.__self__ is new and now() == "new"
        elif type(was) is Part:
            assert type(now) is NewPart and vars(now) == vars(was)
        elif not leads(change, was, set()):
            assert now is was
        else:
            assert now is not was and type(now) is type(was)
            if type(was) is set:
                assert len(now) == len(was)
                continue
            within = inside(was), inside(now)
            waiting += zip(*within, strict=True)
    assert change.renewal.own == {name for name, value in state.items() if leads(change, value, set())}


def test_a_walk_may_be_asked_for_what_it_cannot_read() -> None:
    """An attribute that is gone by the time that it is read is as if it had never been there."""

    class Odd:
        __slots__ = ("never",)

    assert pytest.approx(len(walk_of(odd=Odd()).parts)) == 2

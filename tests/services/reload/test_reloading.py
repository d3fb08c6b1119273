"""A file is edited and the service reloaded: the weights stay, no call is lost, and what is wrong is told."""

from __future__ import annotations

import os
import random
import sys
import traceback
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType
from typing import Any

import numpy
import pytest

from grym_nb.errors import LoadFailed, ReloadFailed, StateError, TaskFailed, UnknownName
from grym_nb.events import ServiceChanged, ServiceReloaded
from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.reload.compare import compare
from tests.services.crowd import Gates, outcome, start
from tests.services.reload.files import Edited

HELPER = """
    SCALE = 2

    def scale(x):
        return x * SCALE
"""
SPEECH = """
    from grym_nb import ModelService, task
    from helper import scale

    LOADED = []

    class Speech(ModelService):
        def __init__(self, *, gain=1):
            self.gain = gain

        def load(self):
            LOADED.append(1)
            self.weights = [object()]

        @task("say")
        def say(self, x):
            return scale(x) * self.gain, self.weights[0]

        @task("wait")
        def wait(self, gates):
            gates["in"].set()
            gates["go"].wait()
            return scale(1)

        @task("fussy")
        def fussy(self, x):
            return x

        @task("loads")
        def loads(self):
            return len(LOADED)
"""


@pytest.fixture
def speech(edited: Edited, registry: ServiceRegistry) -> ServiceHandle:
    module = edited.start(helper=HELPER, speech=SPEECH)
    return registry.register("speech", module.Speech, concurrency=2)


def test_a_method_is_edited(edited: Edited, speech: ServiceHandle) -> None:
    answer, weights = speech.say(3)
    edited.edit("speech", ("scale(x) * self.gain", "scale(x) + 100"))
    report = speech.reload()
    assert (report.how, report.before, report.after) == ("in place", "v1", "v2")
    assert answer == 6 and speech.say(3) == (106, weights)
    assert (speech.version, speech.loads(), speech.status().loads) == ("v2", 1, 1)
    assert report.tried == 1 and "speech v1 → v2 has new code" in repr(report)


def test_a_helper_is_edited(edited: Edited, speech: ServiceHandle) -> None:
    _, weights = speech.say(3)
    edited.edit("helper", ("SCALE = 2", "SCALE = 5"))
    assert speech.reload().how == "in place"
    assert speech.say(3) == (15, weights) and speech.loads() == 1


def test_without_an_edit_nothing_happens(edited: Edited, speech: ServiceHandle) -> None:
    speech.say(1)
    assert speech.reload().how == "unchanged" and speech.version == "v1"
    edited.edit("speech", ("LOADED = []", "LOADED = []  # by each load"))
    speech.reload()
    assert speech.loads() == 1


def test_before_it_is_loaded(edited: Edited, speech: ServiceHandle) -> None:
    edited.edit("speech", ("scale(x) * self.gain", "-scale(x)"))
    assert speech.reload().how == "at load" and speech.version == "v2"
    assert speech.say(3)[0] == -6


def test_a_call_under_way_ends_on_its_code_and_its_helpers(edited: Edited, speech: ServiceHandle) -> None:
    gates = Gates()
    running = start(speech.wait, gates)
    gates.wait("in")
    edited.edit("helper", ("SCALE = 2", "SCALE = 5"))
    assert speech.reload().under_way == 1
    assert speech.say(1)[0] == 5
    gates["go"].set()
    assert outcome(running) == 2


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("LOADED = []", "LOADED = [", "SyntaxError: '[' was never closed (FILE:5)"),
        ("LOADED = []", "LOADED = []\nimport nowhere_at_all", "ModuleNotFoundError"),
        ("LOADED = []", "LOADED = []\n1 / 0", "ZeroDivisionError: division by zero (FILE:6)"),
        (
            "return scale(x) * self.gain, self.weights[0]",
            "return nobody",
            "say, called as before, raised NameError: name 'nobody' is not defined (FILE:17)",
        ),
        (
            "def __init__",
            "def ping(self):\n        raise OSError('dead')\n    def __init__",
            "its ping raised OSError",
        ),
        ("class Speech", "class Spoken", "Speech is gone from speech"),
        ("self, *, gain=1", "self, gain", "config.gain: found nothing"),
    ],
)
def test_what_cannot_serve_is_refused(
    edited: Edited, speech: ServiceHandle, was: str, now: str, told: str
) -> None:
    before = speech.say(3)
    edited.edit("speech", (was, now))
    with pytest.raises(ReloadFailed) as refused:
        speech.reload()
    told = told.replace("FILE", str(edited.path("speech")))
    assert told in str(refused.value) and "goes on with the code it had (v1)" in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3
    assert (speech.say(3), speech.version, speech.loads()) == (before, "v1", 1)
    edited.edit("speech", (now, was))
    assert speech.reload().how == "unchanged" and speech.say(3) == before


def test_a_load_that_asks_a_module_is_what_it_was(edited: Edited, registry: ServiceRegistry) -> None:
    text = SPEECH.replace("LOADED = []", "import time\n    LOADED = []").replace(
        "LOADED.append(1)", "LOADED.append(time.time())"
    )
    speech = registry.register("speech", edited.start(helper=HELPER, speech=text).Speech)
    speech.say(1)
    edited.edit("helper", ("SCALE = 2", "SCALE = 3"))
    assert speech.reload().how == "in place"


def test_force_takes_it_as_it_is(edited: Edited, speech: ServiceHandle) -> None:
    speech.say(3)
    edited.edit("speech", ("return scale(x) * self.gain, self.weights[0]", "return nobody"))
    with pytest.raises(ReloadFailed):
        speech.reload()
    assert speech.reload(force=True).how == "in place"
    for _ in range(2):
        with pytest.raises(TaskFailed, match="nobody"):
            speech.say(3)
    assert speech.version == "v2" and speech.rollback().after == "v1" and speech.say(3)[0] == 6


def test_a_call_that_the_new_code_fails_is_answered_by_the_old(
    edited: Edited, speech: ServiceHandle, registry: ServiceRegistry, caplog: Any
) -> None:
    events: list[ServiceReloaded] = []
    registry.ports.events.subscribe(events.append, ServiceReloaded)
    speech.load()
    edited.edit("speech", ("return x\n", "return {1: 1}[x]\n"))
    assert speech.reload().how == "in place" and speech.fussy(1) == 1 and speech.version == "v2"
    assert speech.fussy(7) == 7 and speech.version == "v1"
    assert [event.how for event in events] == ["in place", "taken back"]
    assert "KeyError: 7" in caplog.text and len(caplog.records) == 1
    assert [row.version for row in registry.calls()] == ["v2", "v1"]
    edited.edit("speech", ("{1: 1}[x]", "{1: 1, 7: 8}[x]"))
    assert speech.reload().after == "v3" and speech.fussy(7) == 8


def test_an_input_that_no_version_takes_is_at_fault_itself(edited: Edited, speech: ServiceHandle) -> None:
    speech.load()
    edited.edit(
        "speech", ("return x\n", "return x + 1\n"), ("scale(x) * self.gain", "scale(x) // self.gain // x")
    )
    speech.reload()
    with pytest.raises(TaskFailed, match="TypeError"):
        speech.say(None)
    assert speech.version == "v2" and speech.fussy(1) == 2


def test_another_load_is_loaded(edited: Edited, speech: ServiceHandle) -> None:
    _, weights = speech.say(3)
    edited.edit("speech", ("self.weights = [object()]", "self.weights = [object(), 2]"))
    report = speech.reload()
    assert report.how == "loaded" and "its load is another one (self.load)" in report.why
    assert speech.say(3)[1] is not weights and speech.loads() == 2 and speech.version == "v2"


def test_another_load_that_fails_goes_back(edited: Edited, speech: ServiceHandle) -> None:
    speech.say(3)
    edited.edit("speech", ("self.weights = [object()]", "self.weights = [nobody]"))
    with pytest.raises(ReloadFailed, match="nobody"):
        speech.reload()
    assert speech.say(3)[0] == 6 and speech.version == "v1"


def test_what_a_new_init_sets_is_there_and_what_it_changes_is_put_back(
    edited: Edited, speech: ServiceHandle
) -> None:
    _, weights = speech.say(3)
    edited.edit(
        "speech",
        ("self.gain = gain", "self.gain = gain * 10; self.bias = 1"),
        ("scale(x) * self.gain", "scale(x) * self.gain + self.bias"),
    )
    report = speech.reload()
    assert report.how == "in place" and speech.say(3) == (61, weights)
    assert report.notes == (
        "new attributes: bias, as `__init__` sets them",
        "set otherwise: gain, as `__init__` does now",
    )
    speech.rollback()
    assert speech.say(3) == (6, weights)


def test_random_generators_are_as_if_nothing_had_been_tried(edited: Edited, speech: ServiceHandle) -> None:
    edited.edit("speech", ("return x\n", "import random; return random.random()\n"))
    speech.reload()
    speech.fussy(1)
    edited.edit("speech", ("random.random()", "-random.random()"))
    random.seed(7)
    expected = random.random()
    random.seed(7)
    assert speech.reload().tried == 1
    assert random.random() == expected


DRAWS = """
    import random
    import numpy as np
    from grym_nb import ModelService, task

    TOP = random.Random(1)

    class Draws(ModelService):
        def load(self):
            self.own = random.Random(2)
            self.of_numpy = np.random.default_rng(3)
            self.older = np.random.RandomState(4)

        @task("draw")
        def draw(self):
            drawn = [one.random() for one in (random, TOP, self.own, np.random, self.of_numpy)]
            return [*drawn, self.older.random_sample(), 0]
"""


def test_so_are_those_of_the_model_and_its_module(edited: Edited, registry: ServiceRegistry) -> None:
    random.seed(7), numpy.random.seed(8)
    other = registry.register("other", edited.start(other=DRAWS).Draws)
    expected = [other.draw()[:-1] for _ in range(2)]
    random.seed(7), numpy.random.seed(8)
    draws = registry.register("draws", edited.start(draws=DRAWS).Draws)
    assert draws.draw() == [*expected[0], 0]
    edited.edit("draws", ("self.older.random_sample(), 0", "self.older.random_sample(), 1"))
    assert draws.reload().tried == 1
    assert draws.draw() == [*expected[1], 1]


def test_a_traceback_shows_the_code_that_ran(edited: Edited, speech: ServiceHandle) -> None:
    edited.edit("speech", ("return x\n", "raise ValueError(x)  # first\n"))
    speech.reload(force=True)
    edited.edit(
        "speech", ("ValueError(x)  # first", "ValueError(-x)  # second"), ("LOADED = []", "LOADED = []\n\n\n")
    )
    with pytest.raises(TaskFailed) as failed:
        speech.fussy(1)
    assert "raise ValueError(x)  # first" in "".join(traceback.format_exception(failed.value))
    speech.reload(force=True)
    with pytest.raises(TaskFailed) as failed:
        speech.fussy(1)
    shown = "".join(traceback.format_exception(failed.value))
    assert "raise ValueError(-x)  # second" in shown and "speech.py (edit 2):" in shown


def test_a_traceback_of_the_first_version_shows_it_also_where_an_edit_was_refused(
    edited: Edited, speech: ServiceHandle
) -> None:
    edited.edit("speech", ("return x\n", "return x + 1  # mine\n"), ("LOADED = []", "LOADED = [\n\n"))
    with pytest.raises(ReloadFailed):
        speech.reload()
    with pytest.raises(TaskFailed) as failed:
        speech.say(None)
    assert "return scale(x) * self.gain, self.weights[0]" in "".join(traceback.format_exception(failed.value))


def test_services_that_share_a_helper_are_reloaded_together_or_not_at_all(
    edited: Edited, speech: ServiceHandle, registry: ServiceRegistry
) -> None:
    other = registry.register("other", edited.start(other=SPEECH.replace("Speech", "Other")).Other)
    speech.say(3), other.say(3)
    edited.edit("helper", ("SCALE = 2", "SCALE = 5"))
    speech.reload()
    assert (speech.say(3)[0], other.say(3)[0]) == (15, 15) and (speech.version, other.version) == ("v2", "v2")
    edited.edit("helper", ("return x * SCALE", "return x.nothing"))
    with pytest.raises(ReloadFailed):
        other.reload()
    assert (speech.say(3)[0], other.say(3)[0]) == (15, 15) and (speech.version, other.version) == ("v2", "v2")


ASKS = """
    from grym_nb import ModelService, task

    def by_a_function(speech, x):
        return speech.fussy(x)

    class Base(ModelService):
        needs = ("speech",)

    class Asks(Base):
        @task("ask")
        def ask(self, x):
            return WAY(x)
"""
WAYS = {
    "by itself": ("", "self.needs.speech.fussy(x)"),
    "by a function": ("", "by_a_function(self.needs.speech, x)"),
    "by what it inherits": (
        "    def inherited(self, x): return self.needs.speech.fussy(x)",
        "self.inherited(x)",
    ),
    "by a property": ("    inside = property(lambda self: self.needs.speech.fussy)", "self.inside(x)"),
}


def asking(way: str) -> str:
    """Return the text of a service that asks for a task in some way."""
    inherits, asks = WAYS[way]
    return ASKS.replace("WAY(x)", asks).replace(
        '    needs = ("speech",)', f'    needs = ("speech",)\n    {inherits}'
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_others_need_is_not_taken_from_them(
    way: str, edited: Edited, speech: ServiceHandle, registry: ServiceRegistry
) -> None:
    asks = registry.register("asks", edited.start(asks=asking(way)).Asks)
    assert asks.ask(3) == 3
    speech.unload()
    edited.edit("speech", ("def fussy", "def picky"))
    with pytest.raises(ReloadFailed, match="asks asks speech for fussy"):
        speech.reload()
    registry.remove("asks")
    assert speech.reload().how == "at load"


@pytest.mark.parametrize("loaded", [True, False])
def test_nor_by_a_class_that_is_registered_again(
    loaded: bool, edited: Edited, speech: ServiceHandle, registry: ServiceRegistry
) -> None:
    asks = registry.register("asks", edited.start(asks=asking("by itself")).Asks)
    speech.load() if loaded else None
    less = edited.start(less=SPEECH.replace("def fussy", "def picky")).Speech
    with pytest.raises(ReloadFailed, match="asks asks speech for fussy"):
        registry.register("speech", less, concurrency=2)
    assert speech.version == "v1" and asks.ask(3) == 3


def test_who_is_inside_cannot_reload_itself(edited: Edited, speech: ServiceHandle) -> None:
    edited.edit("speech", ("return x\n", "return x()\n"))
    speech.reload()
    with pytest.raises(StateError, match="cannot reload the service it runs in"):
        speech.fussy(speech.reload)


def test_an_older_version_answers_beside_the_new_on_the_same_weights(
    edited: Edited, speech: ServiceHandle
) -> None:
    _, weights = speech.say(3)
    edited.edit("speech", ("scale(x) * self.gain", "scale(x) * 10"), ("def fussy", "def picky"))
    speech.reload()
    old = speech.at("v1")
    assert old.say(3) == (6, weights) and speech.say(3) == (60, weights) and old.fussy(1) == 1
    assert old.say.submit(3).result() == (6, weights) and old.say.with_(timeout=5)(3) == (6, weights)
    assert old.run("say", 3) == (6, weights) and old.version == "v1" and "at v1" in repr(old)
    assert {"say", "fussy"} <= set(dir(old)) and "picky" not in dir(old)
    assert [row.version for row in speech._registry.calls()[-2:]] == ["v1", "v1"]
    with pytest.raises(UnknownName, match="v1 has no task 'picky'"):
        _ = old.picky
    with pytest.raises(StateError, match="no version 'v9'"):
        speech.at("v9")
    speech.unload().load()
    with pytest.raises(StateError, match="has its version 1 no more"):
        old.say(3)


def test_two_versions_are_compared(edited: Edited, speech: ServiceHandle) -> None:
    with pytest.raises(StateError, match="no two versions"):
        compare(speech)
    speech.fussy(3), speech.say(2)
    edited.edit("speech", ("return x\n", "return x + 1\n"))
    speech.reload()
    table = compare(speech)
    assert [row[:4] for row in table.rows if row[0] == "fussy(3)"] == [("fussy(3)", "3", "4", "1")]
    assert table.columns[1:3] == ("v1", "v2")


def test_what_is_large_at_the_top_of_a_module_is_said(edited: Edited, speech: ServiceHandle) -> None:
    edited.edit("speech", ("LOADED = []", "import numpy\nLOADED = []\nTABLE = numpy.zeros(8_000_000)"))
    assert "and holds 64.0 MB: what `load` makes stays" in " ".join(speech.reload().notes)


def test_one_that_has_failed_is_loaded(edited: Edited, speech: ServiceHandle) -> None:
    edited.edit("speech", ("self.weights = [object()]", "self.weights = nobody"))
    assert speech.reload().how == "at load"
    with pytest.raises(LoadFailed):
        speech.load()
    edited.edit("speech", ("self.weights = nobody", "self.weights = [object()]"))
    assert speech.reload().how == "loaded" and speech.state == "ready"
    speech.unload()
    speech._record.given_up = "too often"
    assert speech.reload().how == "loaded" and speech.say(1)[0] == 2


LAZY = """
    from grym_nb import ModelService, task
    import box.lid

    class Lazy(ModelService):
        @task("ask")
        def ask(self):
            import later
            return later.N, box.lid.N
"""


def test_what_was_imported_as_it_ran_is_reloaded_and_so_is_a_package(
    edited: Edited, registry: ServiceRegistry
) -> None:
    edited.write("later", "N = 1\n")
    edited.write("box.__init__", "")
    edited.write("box.lid", "N = 1\n")
    lazy = registry.register("lazy", edited.start(lazy=LAZY).Lazy)
    assert lazy.ask() == (1, 1)
    edited.edit("later", ("N = 1", "N = 2"))
    assert lazy.reload().how == "in place" and lazy.ask() == (2, 1)
    edited.edit("box.lid", ("N = 1", "N = 3"))
    lazy.reload()
    assert lazy.ask() == (2, 3) and lazy.rollback() and lazy.ask() == (2, 1)


def test_the_version_that_answers_is_kept_however_often_others_are_taken_back(
    edited: Edited, speech: ServiceHandle
) -> None:
    speech.load()
    edited.edit("speech", ("return x\n", "return {0: 0}[x]\n"))
    for n in range(12):
        edited.edit("speech", (f"{{{n}: ", f"{{{n + 1}: "))
        speech._record.tape.clear()  # by which it would be refused
        assert speech.reload().how == "in place"
        assert speech.fussy(-1) == -1 and speech.version == "v1"
    instance = speech._record.instance
    assert instance is not None and len(instance.versions) <= 5


def test_nobody_goes_back_to_what_was_taken_back(edited: Edited, speech: ServiceHandle) -> None:
    speech.load()
    edited.edit("speech", ("return x\n", "return {0: 0}[x]\n"))
    for n in range(6):
        edited.edit("speech", (f"{{{n}: ", f"{{{n + 1}: "))
        speech._record.tape.clear()
        speech.reload()
        assert speech.fussy(-1) == -1 and speech.version == "v1"
    edited.edit("speech", ("return {6: 0}[x]\n", "return x + 0\n"))
    speech.reload()
    speech.unload()
    with pytest.raises(StateError, match="no earlier version"):
        speech.rollback()
    assert speech.version == "v8"


def test_a_call_on_code_that_is_gone_is_answered_by_what_serves(
    edited: Edited, speech: ServiceHandle
) -> None:
    """It was under way as its version, and all before it, were left behind."""
    speech.load()
    edited.edit("speech", ("return scale(1)", "return scale(1) + nobody"))
    speech.reload()
    gates = Gates()
    running = start(speech.wait, gates)
    gates.wait("in")
    edited.edit("speech", ("scale(1) + nobody", "scale(1) + 0"))
    for n in range(7):
        edited.edit("speech", (f"scale(1) + {n}", f"scale(1) + {n + 1}"))
        speech.reload(force=True)
    gates["go"].set()
    assert outcome(running) == 9


def test_a_report_names_its_own_version_though_a_call_has_taken_it_back_at_once(
    edited: Edited, speech: ServiceHandle, registry: ServiceRegistry
) -> None:
    """The call comes between the swap and the report: as the change is told."""
    speech.load()
    heard: list[Any] = []

    def call(event: ServiceChanged) -> None:
        heard.append(speech.fussy(7))

    registry.ports.events.subscribe(call, ServiceChanged)
    edited.edit("speech", ("return x\n", "return {1: 1}[x]\n"))
    report = speech.reload()
    assert heard == [7] and speech.version == "v1"
    assert (report.how, report.after, report.numbers) == ("in place", "v2", (1, 2))
    assert [one.how for one in speech.reloads] == ["in place", "taken back"]  # as they took force
    assert speech.reloads[0] is report and report.answered == 1


def test_a_module_that_is_imported_after_a_reload_has_versions_too(
    edited: Edited, registry: ServiceRegistry, speech: ServiceHandle
) -> None:
    speech.say(1)
    edited.edit("helper", ("SCALE = 2", "SCALE = 3"))
    speech.reload()
    late = registry.register(
        "late",
        edited.start(late=SPEECH.replace("from helper import scale", "import helper; scale = len")).Speech,
    )
    edited.edit("late", ("return scale(x) * self.gain, self.weights[0]", "return helper.SCALE"))
    late.reload()
    assert late.say(1) == 3
    edited.edit("helper", ("SCALE = 3", "SCALE = 4"))
    assert speech.reload().how == "in place" and late.reload().how == "unchanged"
    assert (late.say(1), late.at("v2").say(1), speech.at("v2").say(1)[0]) == (4, 3, 3)


def test_a_function_that_is_kept_without_its_decorator_stays_without(
    edited: Edited, registry: ServiceRegistry
) -> None:
    edited.start(
        decorated="""
            from functools import wraps

            def twice(fn):
                @wraps(fn)
                def call(x):
                    return 2 * fn(x)
                return call

            @twice
            def measure(x):
                return x
        """
    )
    text = """
        from grym_nb import ModelService, task
        import decorated

        class Keeps(ModelService):
            def load(self):
                self.kept = [decorated.measure.__wrapped__]

            @task("say")
            def say(self, x):
                return 0, self.kept[0](x)
    """
    keeps = registry.register("keeps", edited.start(keeps=text).Keeps)
    assert keeps.say(1) == (0, 1)
    edited.edit("keeps", ("return 0,", "return 1,"))
    assert keeps.reload().how == "in place" and keeps.say(1) == (1, 1)
    edited.edit(
        "decorated", ("return 2 * fn(x)", "return 3 * fn(x)"), ("    return x\n", "    return x + 5\n")
    )
    keeps.reload()
    assert keeps.say(1) == (1, 6)


def test_what_fails_on_another_service_is_told_where_it_was_asked_for(
    edited: Edited, registry: ServiceRegistry, speech: ServiceHandle
) -> None:
    other = registry.register("other", edited.start(other=SPEECH).Speech)
    speech.load(), other.say(3)
    edited.edit("helper", ("return x * SCALE", "return {1: 1}[x]"))
    with pytest.raises(
        ReloadFailed, match="speech was not reloaded: other's say, called as before, raised KeyError"
    ):
        speech.reload()
    assert [one.how for one in speech.reloads] == ["refused"] and other.reloads == ()
    assert (speech.version, other.version, other.say(3)[0]) == ("v1", "v1", 6)


def test_an_extension_that_was_built_anew_is_said(
    edited: Edited, registry: ServiceRegistry, speech: ServiceHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = edited.folder / f"fast{EXTENSION_SUFFIXES[0]}"
    file.write_bytes(b"built once")
    fast = ModuleType("fast")
    fast.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "fast", fast)
    uses = registry.register("uses", edited.start(uses=f"    import fast\n{SPEECH}").Speech)
    assert uses.reload().notes == ()
    os.utime(file, ns=(1, 1))
    note = "fast: an extension that was built anew takes another kernel"
    assert uses.reload().notes == (note,) and note in repr(uses.reload())
    edited.edit("uses", ("return x\n", "return x + 1\n"))
    assert note in uses.reload().notes and uses.fussy(1) == 2


def test_what_a_call_under_way_binds_in_the_old_module_is_said(
    edited: Edited, registry: ServiceRegistry
) -> None:
    text = """
        from grym_nb import ModelService, task
        COUNT = 0

        class Counts(ModelService):
            @task("count")
            def count(self, gates):
                global COUNT
                gates.hold()
                COUNT += 1
                return COUNT

            @task("say")
            def say(self):
                return 0
    """
    counts = registry.register("counts", edited.start(counts=text).Counts, concurrency=2).load()
    gates = Gates()
    running = start(counts.count, gates)
    gates.wait("in")
    edited.edit("counts", ("return 0", "return COUNT"))
    report = counts.reload()
    gates["go"].set()
    assert outcome(running) == 1 and counts.say() == 0
    assert report.notes == ("counts: what calls under way bind to COUNT stays in the old module",)


NET = """
    import numpy
    from grym_nb import ModelService, task

    CALLS = 0

    class Net(ModelService):
        def load(self):
            self.weights = numpy.ones(100_000)

        @task("count")
        def count(self):
            global CALLS
            CALLS += 1
            return CALLS, 1
"""


def test_the_report_has_its_steps_and_the_bytes_that_were_kept(
    edited: Edited, registry: ServiceRegistry
) -> None:
    net = registry.register("net", edited.start(net=NET).Net)
    net.load()
    edited.edit("net", ("CALLS, 1", "CALLS, 2"))
    report = net.reload()
    assert set(report.seconds) == {"read", "build", "migrate", "try", "swap"}
    assert all(seconds > 0 for seconds in report.seconds.values())
    assert report.bytes_kept == 800_000 and "800 KB" in repr(report)
    edited.edit("net", ("    @task", "    def migrate(self, state, before):\n        pass\n\n    @task"))
    assert set(net.reload().seconds) == {"read", "build", "migrate", "try", "drain", "swap"}
    edited.edit("net", ("numpy.ones", "numpy.zeros"))
    report = net.reload()
    assert set(report.seconds) >= {"read", "build", "load", "try", "swap"} and report.bytes_kept == 0


def test_a_global_counter_counts_on_across_an_edit(edited: Edited, registry: ServiceRegistry) -> None:
    net = registry.register("net", edited.start(net=NET.replace('@task("count")', "@task(replay=False)")).Net)
    assert [net.count() for _ in range(3)] == [(1, 1), (2, 1), (3, 1)]
    edited.edit("net", ("CALLS, 1", "CALLS, 2"))
    net.reload()
    assert [net.count(), net.count(), sys.modules["net"].CALLS] == [(4, 2), (5, 2), 5]

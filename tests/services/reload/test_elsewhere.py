"""Objects of changed classes that no service holds are counted when somebody looks."""

from __future__ import annotations

import gc
import weakref
from types import ModuleType, SimpleNamespace
from typing import Any

from grym_nb.services import ServiceHandle, ServiceRegistry
from grym_nb.services.reload.elsewhere import changed_classes, outside
from tests.services.reload.files import Edited

TRACKS = """
    from grym_nb import ModelService, task

    class Track:
        class Mark:
            pass

        def __init__(self, length):
            self.length = length
            self.mark = self.Mark()

        def told(self):
            return "one"

    class Still:
        pass

    class Tracks(ModelService):
        def load(self):
            self.first, self.more = Track(1), {"all": [Track(2), Still()]}

        @task("make")
        def make(self, length):
            return Track(length)

        @task("tell")
        def tell(self):
            return self.first.told(), self.more["all"][0].told()
"""


def made(edited: Edited, registry: ServiceRegistry) -> ServiceHandle:
    return registry.register("tracks", edited.start(tracks=TRACKS).Tracks)


def test_what_a_variable_holds_is_told_in_the_report_for_as_long_as_it_is_there(
    edited: Edited, registry: ServiceRegistry
) -> None:
    tracks = made(edited, registry)
    mine = [tracks.make(n) for n in range(3)]
    edited.edit("tracks", ('return "one"', 'return "two"'))
    report = tracks.reload()
    assert tracks.tell() == ("two", "two") and mine[0].told() == "one"
    assert report.outside() == {"Track": 3, "Mark": 3}
    told = "3 objects of Track that no service holds keep the code of before"
    assert told in repr(report) and told in report._repr_html_()
    del mine[1:]
    assert "1 object of Track that no service holds keeps the code of before" in repr(report)
    mine.clear()
    assert report.outside() == {} and "outside" not in repr(report)
    assert tracks.reloads == (report,)


def test_versions_to_go_back_to_hold_what_is_theirs(edited: Edited, registry: ServiceRegistry) -> None:
    tracks = made(edited, registry)
    tracks.load()
    edited.edit("tracks", ('return "one"', 'return "two"'))
    assert tracks.reload().outside() == {}
    tracks.rollback()
    edited.edit("tracks", ('return "two"', 'return "three"'))
    report = tracks.reload()
    with tracks.use() as model:
        assert report.outside() == {} and model.tell() == ("three", "three")


def test_nothing_is_kept_by_it_and_nothing_is_looked_through_where_nothing_is_left(
    edited: Edited, registry: ServiceRegistry
) -> None:
    tracks = made(edited, registry)
    tracks.load()
    edited.edit("tracks", ('return "one"', 'return "two"'))
    tracks.reload()
    old = weakref.ref(type(tracks.make(1)))
    edited.edit("tracks", ('return "two"', 'return "three"'))
    report = tracks.reload()
    registry.remove("tracks")
    del tracks  # which has the last registrations
    gc.collect()
    assert report.outside() == {} and old() is None


class Odd(type):
    """Does not let its classes be asked for anything."""

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = None  # type: ignore[assignment]


def test_strangers_are_not_asked() -> None:
    module = ModuleType("strange")

    class Plain:
        __module__ = "strange"

    class Strange(metaclass=Odd):
        __module__ = "strange"

    vars(module).update(Plain=Plain, Strange=Strange, again=Plain, other=SimpleNamespace, some=1)

    def newer(made: Any) -> Any:
        return made.__name__ and int

    found = changed_classes([module], newer)
    assert [one() for one in found] == [Plain]
    mine, inside = Plain(), Plain()
    assert outside(found, lambda: [SimpleNamespace(one=inside)]) == {"Plain": 1} and mine is not inside

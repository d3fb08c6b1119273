"""What code has set on a class as it ran is there after an edit of the class, as what is at the top is."""

from __future__ import annotations

from textwrap import indent

import pytest

from grym_nb.errors import ReloadFailed
from grym_nb.services import ServiceRegistry
from tests.services.reload.files import Edited

TEXT = """
from grym_nb.services import ModelService, task
import helpers
from helpers import SIZE

BASE = 1
{head}
class Counts:
    unit = "s"
{body}

    def more(self):
        {deed}
        return self

    def told(self):
        return "old"

{after}
class S(ModelService):
    @task(replay=False)
    def ask(self):
        made = Counts().more()
        return made.told(), {asked}
"""


def text(*, body: str, deed: str, asked: str, head: str = "", after: str = "") -> str:
    return TEXT.format(body=indent(body, "    "), deed=deed, asked=asked, head=head, after=after)


#: of a class, what its body says, what code does to it, and what is asked after three calls, an edit of
#: another method, and one call more
KEPT = {
    "a counter": ("n = 0", "Counts.n += 1", "Counts.n", 4),
    "a counter of the class of the object": ("n: int = 0", "type(self).n += 1", "Counts.n", 4),
    "a list": ("seen = []", "self.seen.append(1)", "len(Counts.seen)", 4),
    "a table of what is empty at first": (
        "seen: dict[int, int] = {}",
        "self.seen[len(self.seen)] = 1",
        "len(self.seen_all())",
        4,
    ),
    "what no body has": ("", "Counts.n = getattr(Counts, 'n', 0) + 1", "Counts.n", 4),
    "what is made of what is as it was": ("n = BASE\nm = n + 1", "Counts.m += 1", "Counts.m", 6),
    "what is made of a helper's": ("n = helpers.SIZE", "Counts.n += 1", "Counts.n", 7),
    "what is made of a name of a helper's": ("n = SIZE", "Counts.n += 1", "Counts.n", 7),
}


@pytest.mark.parametrize("kind", KEPT)
def test_what_code_has_set_stays(edited: Edited, registry: ServiceRegistry, kind: str) -> None:
    body, deed, asked, after = KEPT[kind]
    if "seen_all" in asked:
        body += "\n\ndef seen_all(self):\n    return self.seen"
        asked = "len(made.seen_all())"
    edited.start(helpers="SIZE = 3")
    module = edited.start(counted=text(body=body, deed=deed, asked=asked))
    service = registry.register("counted", module.S)
    assert [service.ask() for _ in range(3)][-1] == ("old", after - 1)
    edited.edit("counted", ('"old"', '"new"'))
    assert service.reload().how == "in place"
    assert service.ask() == ("new", after)


#: the same, and an edit by which it is another one
ANEW = {
    "the line": ("n = 0", ("n = 0", "n = 10"), 11),
    "what the line is made of": ("n = BASE", ("BASE = 1", "BASE = 20"), 21),
    "a line that the line is made of": ("m = 5\nn = m", ("m = 5", "m = 6"), 7),
    "a line that is there twice": ("n = 0\nn = n + 1", ('"old"', '"new"'), 2),
}


@pytest.mark.parametrize("kind", ANEW)
def test_what_is_made_otherwise_is_made_anew(edited: Edited, registry: ServiceRegistry, kind: str) -> None:
    body, change, after = ANEW[kind]
    edited.start(helpers="SIZE = 3")
    module = edited.start(counted=text(body=body, deed="Counts.n += 1", asked="Counts.n"))
    service = registry.register("counted", module.S)
    service.ask()
    edited.edit("counted", change)
    assert service.reload().how == "in place"
    assert service.ask()[1] == after


@pytest.mark.parametrize("line", ["n = helpers.SIZE", "n = SIZE"])
def test_so_is_what_is_made_of_a_helper_that_was_edited(
    edited: Edited, registry: ServiceRegistry, line: str
) -> None:
    edited.start(helpers="SIZE = 3")
    module = edited.start(counted=text(body=line, deed="Counts.n += 1", asked="Counts.n"))
    service = registry.register("counted", module.S)
    assert service.ask() == ("old", 4)
    edited.edit("helpers", ("SIZE = 3", "SIZE = 30"))
    service.reload()
    assert service.ask() == ("old", 31)


def test_what_is_set_at_the_top_goes_with_its_line(edited: Edited, registry: ServiceRegistry) -> None:
    edited.start(helpers="SIZE = 3")
    more = text(body="", deed="pass", asked="getattr(Counts, 'n', None)", after="Counts.n = 5")
    module = edited.start(counted=more)
    service = registry.register("counted", module.S)
    assert service.ask() == ("old", 5)
    edited.edit("counted", ("Counts.n = 5", ""))
    service.reload()
    assert service.ask() == ("old", None)


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (
            "def add(self, one): self.all.append(one.__name__)",
            "made = Counts()\n@made.add\ndef a(): pass",
        ),
        ("def add(self, one): self.all.append(one.__name__)", "Counts().add(len)"),
        ("def __init_subclass__(cls): cls.all.append(cls.__name__)", "class A(Counts): pass"),
    ],
)
def test_what_a_module_has_put_there_itself_is_there_once(
    edited: Edited, registry: ServiceRegistry, body: str, after: str
) -> None:
    edited.start(helpers="SIZE = 3")
    its = text(body=f"all = []\n{body}", deed="pass", asked="len(Counts.all)", after=after)
    module = edited.start(counted=its)
    service = registry.register("counted", module.S)
    (_, once) = service.ask()
    for was, now in (("'old'", "'new'"), ("'new'", "'newer'")):
        edited.edit("counted", (was.replace("'", '"'), now.replace("'", '"')))
        service.reload()
        assert service.ask() == (now.strip("'"), once)


def test_what_a_decorator_has_set_goes_with_it(edited: Edited, registry: ServiceRegistry) -> None:
    edited.start(helpers="SIZE = 3")
    head = "def marked(cls):\n    cls.mark = 1\n    return cls\n@marked"
    module = edited.start(
        counted=text(body="", deed="pass", asked="getattr(Counts, 'mark', None)", head=head)
    )
    service = registry.register("counted", module.S)
    assert service.ask() == ("old", 1)
    edited.edit("counted", ("\n@marked", "\n"))
    service.reload()
    assert service.ask() == ("old", None)


def test_a_service_counts_on_its_own_class(edited: Edited, registry: ServiceRegistry) -> None:
    module = edited.start(
        own="""
            from grym_nb.services import ModelService, task

            class S(ModelService):
                calls = 0
                last = []

                @task(replay=False)
                def ask(self):
                    type(self).calls += 1
                    self.last[:] = [self.calls]
                    return "old", self.calls, self.last
        """
    )
    service = registry.register("own", module.S)
    assert [service.ask() for _ in range(3)][-1] == ("old", 3, [3])
    there = module.S.last
    edited.edit("own", ('"old"', '"new"'))
    service.reload()
    assert service.ask() == ("new", 4, [4]) and module.S.last is there
    service.rollback()
    assert service.ask() == ("old", 4, [4])


def test_members_of_an_enum_are_its_own(edited: Edited, registry: ServiceRegistry) -> None:
    edited.start(helpers="SIZE = 3")
    head = "import enum\nclass Color(enum.Enum):\n    RED = 1\n    def told(self):\n        return self.name"
    module = edited.start(
        counted=text(body="", deed="pass", asked="(Color.RED.told(), Color(1) is Color.RED)", head=head)
    )
    service = registry.register("counted", module.S)
    assert service.ask() == ("old", ("RED", True))
    edited.edit("counted", ("return self.name", "return self.name * 2"))
    service.reload()
    assert service.ask() == ("old", ("REDRED", True))


REGISTERED = """
from grym_nb.services import ModelService, task

class Base:
    handlers = {}
    @classmethod
    def register(cls, f):
        cls.handlers[f.__name__] = f
        return f
    def more(self, x):
        return x

class Sub(Base):
    pass

@Sub.register
def one(x):
    return Sub().more(x)

class S(ModelService):
    @task
    def ask(self, x=1):
        return {name: f(x) for name, f in Base.handlers.items()}
"""


def test_an_edit_that_is_refused_changes_nothing_of_the_class_that_serves(
    edited: Edited, registry: ServiceRegistry
) -> None:
    service = registry.register("registered", edited.start(registered=REGISTERED).S)
    assert service.ask(1) == {"one": 1}
    edited.edit("registered", ("        return x\n", "        raise OSError(x)\n"))
    with pytest.raises(ReloadFailed, match="OSError"):
        service.reload()
    assert service.ask(2) == {"one": 2}
    edited.edit("registered", ("        raise OSError(x)\n", "        return x * 10\n"))
    service.reload()
    assert service.ask(2) == {"one": 20}


AROUND = """
from grym_nb.services import ModelService, task

def scaled(by):
    def decorate(cls):
        cls.unit *= by
        return cls
    return decorate

class Named:
    def __init_subclass__(cls, prefix):
        cls.name = prefix + cls.__name__

@scaled(2)
class Counts(Named, prefix="a-"):
    unit = 1
    def told(self):
        return "old"

class S(ModelService):
    @task
    def ask(self):
        return Counts.unit, Counts.name, Counts().told()
"""


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (("@scaled(2)", "@scaled(3)"), (3, "a-Counts", "old")),
        (("*= by", "*= by + 5"), (7, "a-Counts", "old")),
        (('prefix="a-"', 'prefix="b-"'), (2, "b-Counts", "old")),
        (("prefix + cls", "2 * prefix + cls"), (2, "a-a-Counts", "old")),
        (('"old"', '"new"'), (2, "a-Counts", "new")),
    ],
)
def test_what_stands_around_a_class_is_in_force(
    edited: Edited, registry: ServiceRegistry, change: tuple[str, str], after: object
) -> None:
    service = registry.register("around", edited.start(around=AROUND).S)
    assert service.ask() == (2, "a-Counts", "old")
    edited.edit("around", change)
    service.reload()
    assert service.ask() == after


ONE = """
from grym_nb.services import ModelService, task

class E:
    _it = None
    __private = 0
    pool = []
    @classmethod
    def get(cls):
        if cls._it is None:
            cls._it = cls()
            cls.pool.append(cls._it)
        E.__private += 1
        return cls._it
    def run(self):
        return "old"
    @classmethod
    def private(cls):
        return cls.__private

class S(ModelService):
    @task(replay=False)
    def ask(self):
        return E.get().run(), isinstance(E.get(), E), len(E.pool), E.private()
"""


def test_objects_of_the_class_itself_are_made_anew(edited: Edited, registry: ServiceRegistry) -> None:
    service = registry.register("single", edited.start(single=ONE).S)
    assert service.ask() == ("old", True, 1, 2)
    edited.edit("single", ('"old"', '"new"'))
    service.reload()
    assert service.ask() == ("new", True, 1, 4)

"""Who is told of what: once, when it has held, and again when it is over."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest

from grym_nb.errors import ConfigError, ValidationError
from grym_nb.events import AlertChanged, EventBus
from grym_nb.health.alerts import Alerts
from grym_nb.health.channels import command, log, webhook
from grym_nb.health.notices import Notice
from grym_nb.health.rules import Rule
from grym_nb.metrics import Metrics
from grym_nb.metrics.history import History
from grym_nb.testing import FakeClock
from tests.services.crowd import until

LEVEL = Rule("high", "level", above=10.0, clear=8.0, suggest="turn it down")


class House:
    def __init__(self) -> None:
        self.clock = FakeClock(1000.0)
        self.metrics = Metrics()
        self.history = History(self.metrics, clock=self.clock)
        self.events = EventBus()
        self.told: list[str] = []
        self.alerts = Alerts(
            self.history, clock=self.clock, wall=self.clock, events=self.events, channels=[self.hear]
        )

    def hear(self, notice: Notice) -> None:
        self.told.append(notice.text)

    def level(self, value: float, seconds: int = 1, **tags: str) -> None:
        self.metrics.gauge("level", **tags).set(value)
        self.wait(seconds)

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.history.step()
            self.alerts.step()


@pytest.fixture
def house() -> House:
    return House()


def test_it_fires_once_and_is_over_once_beyond_where_it_clears(house: House) -> None:
    house.alerts.add(LEVEL)
    heard: list[str] = []
    house.events.subscribe(lambda event: heard.append(event.alert.state), AlertChanged)
    for value in (9.0, 11.0, 12.0, 9.0, 11.0, 7.0, 9.0):
        house.level(value)
    assert house.told == [
        "the kernel: high (warning): 11, above 10 → turn it down",
        "the kernel: high is over, after 4 s",
    ]
    assert heard == ["firing", "over"] and house.alerts.active == ()
    assert [alert.state for alert in house.alerts.story] == ["firing", "over"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_time_of_day_that_is_put_right_does_not_change_for_how_long_it_fired(hours: int) -> None:
    house, wall, told = House(), FakeClock(50_000.0), []
    house.alerts = Alerts(house.history, clock=house.clock, wall=wall, channels=[told.append])
    house.alerts.add(Rule("high", "level", above=10.0, clear_seconds=3.0))
    house.level(11.0, 5)
    wall._now += hours * 3600.0
    house.level(1.0, 2)
    assert house.alerts.active[0].since == wall() + 1001.0 - house.clock()
    house.level(1.0, 2)
    assert told[-1].text == "the kernel: high is over, after 8 s"


def test_a_figure_is_said_with_the_limit_that_it_is_beyond(house: House) -> None:
    """Between the limit and where it is over, it is not beyond the limit; when it is over, beyond neither."""
    over: list[Any] = []
    house.events.subscribe(lambda event: over.append(event.alert), AlertChanged)
    house.alerts.add(Rule("high", "level", above=10.0, clear=5.0, clear_seconds=2.0))
    house.alerts.add(Rule("low", "level", below=-10.0, clear=-5.0))
    seen = []
    for value in (12.0, 7.0, 3.0, 4.0, 4.0, -12.0, -7.0, 0.0):
        house.level(value)
        seen += [alert.told for alert in house.alerts.active]
    assert seen == [
        *("12, above 10", "7, not yet below 5", "3, not above 5", "4, not above 5"),
        *("-12, below -10", "-7, not yet above -5"),
    ]
    ends = [(alert.rule, alert.figure, alert.told) for alert in over if alert.state == "over"]
    assert ends == [("high", 4.0, "4, not above 5"), ("low", 0.0, "0, not below -5")]


def test_a_rule_may_say_in_its_own_words_what_it_found(house: House) -> None:
    def tells(tags: Any, figure: float) -> str:
        return f"{dict(tags)['service']} is at {figure:.0f} of 10 degrees" if figure < 20 else ""

    house.alerts.add(Rule("high", "level", above=10.0, by=("service",), tells=tells))
    house.level(12.0, service="a")
    assert house.told == ["a: high (warning): a is at 12 of 10 degrees"]
    house.level(30.0, service="b")
    assert house.told[1:] == ["b: high (warning): 30, above 10"], "where it says nothing, as ever"
    with pytest.raises(ConfigError, match="a plain function of tags and a figure"):
        Rule("high", "level", above=10.0, tells="hot")  # type: ignore[arg-type]


def test_a_rules_function_is_a_plain_one_and_gives_a_number_of_any_kind(house: House) -> None:
    async def later(history: Any, now: float) -> float:
        return 1.0

    for one in (later, partial(later, now=0.0)):
        with pytest.raises(ConfigError, match="a metric's name, or a plain function"):
            Rule("high", one, above=10.0)
    for at, one in enumerate((np.array(11.0), np.float32(11.0), Fraction(11), 11)):
        house.alerts.add(Rule(f"high{at}", lambda history, now, one=one: one, above=10.0))
    house.level(0.0)
    house.wait(1)
    until(lambda: len(house.told) == 4)
    assert all("11, above 10" in one for one in house.told)


def test_it_has_to_hold_and_to_be_over_for_a_while(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, for_seconds=5.0, clear_seconds=3.0))
    house.level(11.0, 4)
    house.level(9.0, 1)
    house.level(11.0, 5)
    assert house.told == []
    house.level(11.0, 1)
    assert house.told == ["the kernel: high (warning): 11, above 10, for 5 s"]
    house.level(9.0, 2)
    house.level(11.0, 1)
    house.level(9.0, 3)
    assert len(house.told) == 1
    house.level(9.0, 1)
    assert len(house.told) == 2


def test_each_group_fires_by_itself_and_those_that_begin_together_are_told_together(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, by=("service",), severity="critical"))
    for name, value in (("a", 11.0), ("b", 5.0), ("c", 12.0)):
        house.metrics.gauge("level", service=name).set(value)
    house.wait(1)
    assert house.told == ["a: high (critical): 11, above 10\nc: high (critical): 12, above 10"]
    assert [alert.subject for alert in house.alerts.active] == ["a", "c"]
    house.metrics.drop(service="a")
    house.wait(1)
    assert house.told[-1] == "a: high is over, after 1 s", "what it was about is gone"


@pytest.mark.parametrize(
    ("rule", "quiet", "loud"),
    [
        (Rule("low", "level", below=2.0), 3.0, 1.0),
        (Rule("fast", "calls", figure="rate", above=1.5, window=10.0), 1, 3),
        (Rule("slow", "seconds", figure="p95", above=0.5, window=10.0), 0.1, 0.9),
        (
            Rule("own", lambda history, now: {(): history.window("level", 1.0).last or 0.0}, above=5.0),
            4.0,
            6.0,
        ),
    ],
)
def test_any_figure_can_be_watched(house: House, rule: Rule, quiet: float, loud: float) -> None:
    house.alerts.add(rule)

    def go(value: float) -> None:
        for _ in range(12):
            house.metrics.counter("calls").add(value)
            house.metrics.histogram("seconds").record(value)
            house.level(value)

    go(quiet)
    assert house.told == []
    go(loud)
    assert len(house.told) == 1 and rule.name in house.told[0]


@pytest.mark.parametrize("by", [(), ("service",)])
def test_a_rate_over_a_window_is_of_the_whole_window(house: House, by: tuple[str, ...]) -> None:
    """A few calls right after the start are no rate of the minute of which a second is known."""
    house.alerts.add(Rule("many", "calls", figure="rate", above=5.0, window=60.0, by=by))
    house.alerts.add(Rule("few", "calls", figure="rate", below=0.2, window=60.0, by=by))
    house.alerts.add(Rule("hardly any", "calls", figure="count", below=10, window=60.0, by=by))
    calls = house.metrics.counter("calls", service="a")
    calls.add(8)
    house.wait(50)
    assert house.told == []
    house.wait(8)
    assert [text.split(" (")[0].split(": ")[1] for text in house.told] == ["few", "hardly any"]
    house.told.clear()
    calls.add(400)
    house.wait(1)
    assert any(": many (warning): 6.8, above 5" in text for text in house.told)


def test_a_rate_that_is_too_high_whatever_comes_is_told_before_its_window_is_known(house: House) -> None:
    house.alerts.add(Rule("many", "calls", figure="rate", above=5.0, window=60.0))
    house.metrics.counter("calls").add(301)
    house.wait(1)
    assert house.told == ["the kernel: many (warning): 5.017, above 5"], "301 in a minute, at least"


def test_absence_is_noticed_where_there_was_something(house: House) -> None:
    house.alerts.add(Rule("silent", "calls", absent=30.0))
    house.wait(60)
    assert house.told == []
    house.metrics.counter("calls").add()
    house.wait(30)
    assert house.told == []
    house.wait(1)
    assert house.told == ["the kernel: silent (warning): nothing for 30 s"]
    house.metrics.counter("calls").add()
    house.wait(1)
    assert house.told[-1] == "the kernel: silent is over, after 1 s"


@pytest.mark.parametrize(("by", "about"), [((), "the kernel"), (("service",), "asr")])
def test_calls_are_not_absent_while_one_of_them_computes(
    house: House, by: tuple[str, ...], about: str
) -> None:
    house.alerts.add(Rule("silent", "service.call.seconds", absent=30.0, by=by))
    running = house.metrics.gauge("service.running", service="asr")
    house.wait(1)
    house.metrics.histogram("service.call.seconds", service="asr").record(1.0)
    running.set(1)
    house.wait(300)
    assert house.told == []
    running.set(0)
    house.wait(1)
    assert house.told == [f"{about}: silent (warning): nothing for 5 min 0 s"]


def test_a_limit_that_is_ahead_is_told_before_it_is_reached(house: House) -> None:
    house.alerts.add(Rule("ahead", "level", above=100.0, within=120.0, window=60.0, clear_seconds=30.0))
    for n in range(50):
        house.level(10.0 + 0.5 * n)
    assert house.told == []
    for n in range(50, 90):
        house.level(10.0 + 0.5 * n)
    assert len(house.told) == 1 and "100 in about" in house.told[0]


def test_what_is_silenced_shows_and_is_not_told(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, by=("service",)))
    house.alerts.silence(60.0, rule="high", service="a", why="I know")
    end = house.alerts.silence(1000.0, why="all of it")
    house.level(11.0, service="a")
    assert house.told == [] and [alert.subject for alert in house.alerts.active] == ["a"]
    end()
    assert [silence.why for silence in house.alerts.silences] == ["I know"]
    house.wait(30)
    assert house.told == []
    house.wait(40)
    assert house.told == ["a: high (warning): 11, above 10, for 59 s"] and house.alerts.silences == ()


def test_what_follows_from_something_worse_is_not_told(house: House) -> None:
    house.alerts.add(Rule("down", "down", above=0.5, by=("service",), severity="critical"))
    house.alerts.add(Rule("high", "level", above=10.0, by=("service",), inhibited_by=("down",)))
    house.metrics.gauge("down", service="a").set(1)
    house.metrics.gauge("level", service="b").set(11)
    house.level(11.0, service="a")
    assert [text.split(" (")[0] for text in house.told] == ["a: down", "b: high"]
    house.metrics.gauge("down", service="a").set(0)
    house.wait(2)
    assert [text.split(" (")[0] for text in house.told][2:] == ["a: down is over, after 1 s", "a: high"]


@pytest.mark.parametrize("goes_on", [False, True])
def test_what_was_kept_quiet_is_told_only_by_what_comes_after_it(house: House, goes_on: bool) -> None:
    """Its window has what was while something worse fired: by that it would be told as all is well."""
    house.alerts.add(Rule("down", "down", above=0.5, by=("service",)))
    house.alerts.add(
        Rule(
            *("failing", "failed"),
            figure="mean",
            above=0.2,
            clear=0.1,
            window=60.0,
            for_seconds=20.0,
            clear_seconds=20.0,
            by=("service",),
            inhibited_by=("down",),
        )
    )
    failed = house.metrics.histogram("failed", service="a")

    def go(seconds: int, share: float) -> None:
        for _ in range(seconds):
            failed.record(share)
            house.wait(1)

    go(10, 0.0)
    house.metrics.gauge("down", service="a").set(1)
    go(40, 1.0)
    assert [alert.rule for alert in house.alerts.active] == ["down", "failing"]
    house.metrics.gauge("down", service="a").set(0)
    go(70, 1.0 if goes_on else 0.0)
    told = ["a: down (warning): 1, above 0.5", "a: down is over, after 40 s"]
    assert house.told == told, "not yet, or never"
    go(120, 1.0 if goes_on else 0.0)
    assert house.told[2:] == (["a: failing (warning): 1, above 0.2, for 20 s"] if goes_on else [])


def test_what_followed_from_another_service_is_told_only_by_what_comes_after_it() -> None:
    house = House()
    alerts = Alerts(
        *(house.history, [Rule("bad", "failed", figure="mean", above=0.5, window=10.0, by=("service",))]),
        clock=house.clock,
        wall=house.clock,
        channels=[house.hear],
        needs=lambda name: {"app": {"base"}}.get(name, ()),
    )

    def go(seconds: int, **shares: float) -> None:
        for _ in range(seconds):
            for name, share in shares.items():
                house.metrics.histogram("failed", service=name).record(share)
            house.clock.advance(1.0)
            alerts.step()

    go(10, base=1.0, app=1.0)
    go(6, base=0.0, app=0.9)
    assert [text.partition(" (")[0] for text in house.told[:1]] == ["base: bad"]
    assert len(house.told) == 2 and house.told[1].startswith("base: bad is over")
    assert "app" not in house.told[1], "not by what was while base was ill"
    go(5, app=0.9)
    assert len(house.told) == 2
    go(15, app=0.9)
    assert [text.partition(" (")[0] for text in house.told[2:]] == ["app: bad"]


def test_a_rule_that_names_one_which_there_is_not_is_said_as_it_comes(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    follows = Rule("high", "level", above=10.0, inhibited_by=("dwon",))
    house.alerts.add(LEVEL)
    house.alerts.add(Rule("down", "down", above=0.5))
    for _ in range(2):  # a cell that is run again
        house.alerts.add(follows)
    told = (
        "the rule high is inhibited by what is not there yet: there is no rule 'dwon'. Did you mean 'down'?"
    )
    assert caplog.messages == [told]
    assert (
        house.alerts.state_of(follows) == "no such series yet; there is no rule 'dwon'. Did you mean 'down'?"
    )
    house.alerts.add(Rule("dwon", "down", above=0.5))
    assert house.alerts.state_of(follows) == "no such series yet"


def test_rules_that_come_together_may_name_each_other(house: House, caplog: pytest.LogCaptureFixture) -> None:
    rules = [
        Rule("one", "level", above=1.0, inhibited_by=("other",)),
        Rule("other", "level", above=2.0, inhibited_by=("nobody",)),
    ]
    Alerts(house.history, rules)
    assert caplog.messages == [
        "the rule other is inhibited by what is not there yet: there is no rule 'nobody'."
    ]


def test_a_rule_that_cannot_be_evaluated_is_said_once_and_disturbs_no_other(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(history: History, now: float) -> Any:
        raise KeyError("what")

    house.alerts.add(Rule("broken", broken, above=1.0))
    house.alerts.add(LEVEL)
    house.level(11.0, 3)
    assert len(house.told) == 1
    assert [m for m in caplog.messages if "broken cannot be evaluated: KeyError" in m] == caplog.messages


def test_a_channel_that_raises_is_told_of_the_next(house: House, caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def broken(notice: Notice) -> None:
        asked.append(notice)
        raise OSError("nobody there")

    house.alerts.tell(broken)
    end = house.alerts.tell(log)
    house.alerts.add(LEVEL)
    with caplog.at_level("INFO", logger="grym_nb.alerts"):
        house.level(11.0)
        end()
        house.level(5.0)
    assert len(asked) == 2 and len(house.told) == 2
    assert "the kernel: high (warning): 11, above 10 → turn it down" in caplog.messages


def test_rules_come_and_go_and_wrong_names_are_told(house: House) -> None:
    house.alerts.add(LEVEL)
    house.level(11.0)
    house.alerts.add(Rule("high", "level", above=20.0))
    house.wait(1)
    assert house.told[-1].startswith("the kernel: high is over")
    house.alerts.remove("high")
    assert house.alerts.rules == () and repr(house.alerts) == "alerts: nothing fires"
    for wrong in (
        lambda: house.alerts.remove("hihg"),
        lambda: house.alerts.silence(5.0, rule="hihg"),
        lambda: house.alerts.silence(0.0),
    ):
        with pytest.raises(ValidationError):
            wrong()
    with pytest.raises(ConfigError, match="only rules can be followed"):
        house.alerts.add("high")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"above": 1.0, "below": 2.0},
        {"above": 1.0, "absent": 5.0},
        {"above": 1.0, "clear": 2.0},
        {"above": float("nan")},
        {"above": 1.0, "figure": "p96"},
        {"above": 1.0, "severity": "dire"},
        {"above": 1.0, "window": 0.0},
        {"above": 10**400},
        {"above": 1.0, "suggest": None},
        {"above": 1.0, "words": 5},
        {"above": 1.0, "named": {2.0: 5}},
        {"above": 1.0, "inhibited_by": ("other", "high")},
        {"absent": 5.0, "metric": lambda history, now: 61.0},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="this is no rule"):
        Rule(**{"name": "high", "metric": "level", **wrong})


def test_of_two_that_inhibit_each_other_one_is_told(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, inhibited_by=("higher",)))
    house.alerts.add(Rule("higher", "level", above=20.0, inhibited_by=("high",)))
    house.level(30.0, 3)
    house.level(5.0)
    assert house.told == ["the kernel: high (warning): 30, above 10", "the kernel: high is over, after 3 s"]


def test_of_three_that_inhibit_each_other_in_a_ring_one_is_told(house: House) -> None:
    for name, other in (("one", "two"), ("two", "three"), ("three", "one")):
        house.alerts.add(Rule(name, "level", above=10.0, inhibited_by=(other,)))
    house.level(30.0, 3)
    assert house.told == ["the kernel: one (warning): 30, above 10"]


def test_what_inhibits_it_and_is_kept_quiet_by_a_third_keeps_it_quiet_too(house: House) -> None:
    house.alerts.add(Rule("one", "level", above=20.0, inhibited_by=("two",)))
    house.alerts.add(Rule("two", "level", above=10.0, inhibited_by=("one", "third")))
    house.alerts.add(Rule("third", "level", above=5.0))
    for value in (7.0, 15.0, 25.0):
        house.level(value)
    assert house.told == ["the kernel: third (warning): 7, above 5"]


def test_one_of_the_kernel_is_not_inhibited_by_that_of_a_service_which_it_inhibits(house: House) -> None:
    house.alerts.add(Rule("own", "level", above=10.0, by=("service",), inhibited_by=("all",)))
    house.alerts.add(Rule("all", "level", above=10.0, inhibited_by=("own",)))
    house.level(30.0, 3, service="asr")
    assert house.told == ["the kernel: all (warning): 30, above 10"]


def test_what_a_rule_tells_is_shown_whatever_it_is(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, tells=lambda tags, figure: 5))  # type: ignore[arg-type, return-value]
    house.level(11.0)
    assert house.told == ["the kernel: high (warning): 5"]
    assert "  5  " in house.alerts.table().text()


def test_the_table_has_the_gravest_first_with_what_to_do(house: House) -> None:
    house.alerts.add(LEVEL)
    house.alerts.add(Rule("worse", "level", above=10.0, severity="critical"))
    house.level(11.0, 3)
    assert [alert.rule for alert in house.alerts.active] == ["worse", "high"]
    assert "turn it down" in repr(house.alerts) and "<table" in house.alerts._repr_html_()


# -- what could be told wrongly ---------------------------------------------------------------------


def test_what_comes_to_a_stop_is_below_its_limit_still(house: House) -> None:
    house.alerts.add(Rule("quiet", "calls", figure="rate", below=0.5, window=10.0, by=("service",)))
    house.alerts.add(Rule("few", "calls", figure="count", below=5, window=10.0, tags={"service": "a"}))
    calls = house.metrics.counter("calls", service="a")
    for _ in range(20):
        calls.add()
        house.wait(1)
    house.told.clear()
    house.wait(100)
    assert sorted(text.split(" (")[0] for text in house.told) == ["a: quiet", "the kernel: few"]
    assert len(house.alerts.active) == 2


@pytest.mark.parametrize("by", [(), ("service",)])
def test_without_a_figure_it_is_how_much_came(house: House, by: tuple[str, ...]) -> None:
    house.alerts.add(Rule("many", "calls", above=5, by=by))
    house.alerts.add(Rule("slow", "seconds", above=5, by=by))
    house.metrics.counter("calls", service="a").add(6)
    for _ in range(6):
        house.metrics.record("seconds", 0.1, service="a")
    house.wait(1)
    assert {alert.rule for alert in house.alerts.active} == {"many", "slow"}


def test_a_single_tag_may_be_a_text(house: House) -> None:
    rule = Rule("high", "level", above=10.0, by="service", inhibited_by=["down"])  # type: ignore[arg-type]
    assert (rule.by, rule.inhibited_by) == (("service",), ("down",))
    house.alerts.add(rule)
    house.level(11.0, service="a")
    assert [alert.subject for alert in house.alerts.active] == ["a"]


def test_who_is_removed_in_the_middle_of_a_step_is_over_and_told(house: House) -> None:
    house.alerts.add(LEVEL)
    house.alerts.add(Rule("other", "level", above=10.0))
    house.level(11.0)
    steps = house.alerts.steps()
    next(steps)
    house.alerts.remove("other")
    assert [alert.rule for alert in house.alerts.active] == ["high"]
    for _ in steps:
        pass
    assert house.told[-1] == "the kernel: other is over, after 0 us (the rule was removed)"
    assert not [key for key in house.alerts._tracks if key[0] == "other"]


def test_what_a_broken_rule_fires_is_over_and_says_why(house: House) -> None:
    broken = False

    def figure(history: History, now: float) -> dict[Any, float]:
        if broken:
            raise KeyError("what")
        return {(): 5.0}

    own = Rule("own", figure, above=1.0)
    house.alerts.add(own)
    house.wait(1)
    assert house.alerts.state_of(own) == "fires"
    broken = True
    house.wait(2)
    assert (
        house.told[-1]
        == "the kernel: own is over, after 1 s (the rule cannot be evaluated: KeyError: 'what')"
    )
    assert house.alerts.active == () and house.alerts.state_of(own) == "broken: KeyError: 'what'"
    broken = False
    house.wait(1)
    assert house.alerts.state_of(own) == "fires" and len(house.told) == 3


def test_a_rule_that_cannot_fire_says_why(house: House) -> None:
    house.metrics.histogram("service.wait.seconds", service="a").record(1.0)
    house.metrics.counter("calls", service="a").add()
    house.wait(1)
    for rule, why in (
        (Rule("r", "clals", above=1), "no such series yet. Did you mean 'calls'?"),
        (Rule("r", "other", above=1), "no such series yet"),
        (Rule("r", "service.waiting", above=1), "no such series yet"),
        (Rule("r", "service.waitin", above=1), "no such series yet. Did you mean 'service.waiting'?"),
        (
            Rule("r", "calls", above=1, tags={"service": "b"}),
            "no series with these tags yet; its tags are service",
        ),
        (Rule("r", "calls", above=1, by=("task",)), "no series with these tags yet; its tags are service"),
        (Rule("r", "calls", figure="p95", above=1), "a counter has no p95: one of value, rate, count"),
        (Rule("r", "calls", above=5), "quiet"),
        (Rule("r", lambda history, now: {}, above=5), "quiet"),
    ):
        assert house.alerts.state_of(rule) == why


def test_what_is_set_to_what_it_is_is_not_absent(house: House) -> None:
    house.alerts.add(Rule("silent", "level", absent=10.0))
    for _ in range(20):
        house.level(1.0)
    assert house.told == []
    house.wait(11)
    assert len(house.told) == 1


def test_figures_may_have_names(house: House) -> None:
    house.alerts.add(Rule("bad", "level", above=1.5, named={2.0: "judged unhealthy"}))
    house.level(2.0)
    assert house.told == ["the kernel: bad (warning): judged unhealthy"]


def test_what_was_mended_before_the_step_is_not_told(house: House) -> None:
    house.alerts.add(LEVEL)
    house.metrics.gauge("level").set(11.0)
    house.clock.advance(1.0)
    house.history.step()
    house.metrics.gauge("level").set(1.0)
    house.alerts.step()
    assert house.told == []


def test_times_of_alerts_are_those_of_the_day() -> None:
    house = House()
    alerts = Alerts(house.history, [LEVEL], clock=house.clock, wall=lambda: house.clock() + 1e9)
    house.metrics.gauge("level").set(11.0)
    house.clock.advance(1.0)
    alerts.step()
    assert alerts.story[0].at == 1e9 + 1001.0 and "0 us" in repr(alerts)


def test_what_is_silenced_before_it_is_there_is_said(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """It may be a service that is to come, or a misspelt one."""
    house.alerts.add(Rule("high", "level", above=10.0, by=("service",)))
    house.level(11.0, service="asr")
    house.alerts.silence(60.0, service="asr")
    assert caplog.messages == []
    house.alerts.silence(60.0, service="sar")
    assert caplog.messages == ["silenced is what nothing has yet: service='sar'. Did you mean 'asr'?"]
    house.level(11.0, service="sar")
    assert len(house.told) == 1 and "asr" in house.told[0]


def test_only_what_there_is_can_be_silenced_and_all_of_it_is_shown(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, by=("service",)))
    with pytest.raises(ValidationError, match="Did you mean 'service'"):
        house.alerts.silence(60.0, srevice="a")
    with pytest.raises(ValidationError, match="expected each tag by itself: service='a'") as caught:
        house.alerts.silence(60.0, tags={"service": "a"})  # type: ignore[arg-type]
    assert "Did you mean" not in str(caught.value)
    for wrong in ("x", True, float("nan"), -1):
        with pytest.raises(ValidationError, match="nothing is silenced so"):
            house.alerts.silence(wrong)  # type: ignore[arg-type]
    house.alerts.silence(60.0, service="a")
    house.alerts.silence(60.0, rule="high")
    assert [one.what for one in house.alerts.silences] == ["all (service=a)", "high"]
    assert house.alerts.unsilence("high") == 1 and house.alerts.unsilence("high") == 0
    assert house.alerts.unsilence() == 1 and house.alerts.silences == ()
    with pytest.raises(ValidationError, match="there is no rule 'hihg'"):
        house.alerts.unsilence("hihg")


def test_the_same_silence_again_is_in_the_place_of_the_first(house: House) -> None:
    house.alerts.add(Rule("high", "level", above=10.0, by=("service",)))
    house.alerts.silence(3600.0, rule="high", why="asked")
    house.alerts.silence(600.0, rule="high", why="asked")
    house.alerts.silence(60.0, rule="high", why="another")
    house.alerts.silence(60.0, rule="high", why="asked", service="a")
    now = house.clock()
    assert [one.until - now for one in house.alerts.silences] == [600.0, 60.0, 60.0]


def test_what_is_well_and_fires_still_says_for_how_long_it_has_to_stay_so(house: House) -> None:
    house.alerts.add(Rule("ill", "level", above=1.5, clear_seconds=10.0, named={0.0: "judged healthy"}))
    house.level(2.0)
    assert "judged healthy" not in house.alerts.table().text()
    house.level(0.0)
    assert "judged healthy; over once that has lasted 10 s" in house.alerts.table().text()
    house.wait(11)
    assert house.alerts.table().text().endswith("nothing fires")


def test_silences_that_have_ended_are_forgotten(house: House) -> None:
    for _ in range(10):
        house.alerts.silence(1.0)
        house.clock.advance(2.0)
    assert len(house.alerts._silences) == 1


@pytest.mark.parametrize("wrong", [{"tags": 5}, {"tags": {"a": 1}}, {"by": 5}, {"by": (5,)}, {"named": 5}])
def test_a_rule_with_what_is_no_tag_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="this is no rule"):
        Rule("high", "level", above=1.0, **wrong)


@pytest.mark.parametrize("wrong", ["", "ftp://x", "file:///etc/passwd", "http://", 5])
def test_only_the_web_can_be_posted_to(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="nothing can be posted there"):
        webhook(wrong)


@pytest.mark.parametrize("wrong", ["rm -rf", [], [""], [5], None])
def test_only_a_list_of_texts_is_a_command(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="no program can be run so"):
        command(wrong)


def test_who_fails_by_another_is_told_of_with_that_one() -> None:
    house = House()
    needs = {"app": {"middle", "base"}, "middle": {"base"}}
    alerts = Alerts(
        *(house.history, [Rule("bad", "level", above=1.0, by=("service",))]),
        clock=house.clock,
        wall=house.clock,
        channels=[house.hear],
        needs=lambda name: needs.get(name, ()),
    )

    def step(**levels: float) -> None:
        for name, level in levels.items():
            house.metrics.gauge("level", service=name).set(level)
        house.clock.advance(1.0)
        alerts.step()

    step(app=2.0, middle=2.0, base=2.0, other=2.0)
    assert house.told == [
        "base: bad (warning): 2, above 1; by it suffer app, middle\nother: bad (warning): 2, above 1"
    ]
    assert len(alerts.active) == 4, "all of them are shown"
    step(app=2.0, middle=0.0, base=0.0)
    assert set(house.told[1].splitlines()) == {
        "base: bad is over, after 1 s",
        "app: bad (warning): 2, above 1, for 1 s",  # it has a trouble of its own
    }


def test_who_comes_to_suffer_later_is_shown_and_not_told_of() -> None:
    house = House()
    alerts = Alerts(
        *(house.history, [Rule("bad", "level", above=1.0, by=("service",))]),
        clock=house.clock,
        wall=house.clock,
        channels=[house.hear],
        needs=lambda name: ("base",) if name != "base" else (),
    )

    def suffer(**levels: float) -> tuple[str, ...]:
        for name, level in levels.items():
            house.metrics.gauge("level", service=name).set(level)
        house.clock.advance(1.0)
        alerts.step()
        [base] = [alert for alert in alerts.active if alert.subject == "base"]
        return base.suffers

    assert suffer(base=2.0, a=2.0) == ("a",)
    assert suffer(base=3.0) == ("a",), "also when it was looked at again"
    assert suffer(b=2.0) == ("a", "b")
    [row] = [line for line in alerts.table().text().splitlines() if line.startswith("base")]
    assert "3, above 1; by it suffer a, b" in row
    assert suffer(a=0.0) == ("b",)
    assert house.told == ["base: bad (warning): 2, above 1; by it suffer a"]


@pytest.mark.parametrize("wrong", [["high"], {}, 5])
def test_what_is_no_rule_is_refused(house: House, wrong: Any) -> None:
    house.alerts.add(LEVEL)
    for asked in (lambda: house.alerts.silence(5, rule=wrong), lambda: house.alerts.unsilence(wrong)):
        with pytest.raises(ValidationError, match="there is no rule"):
            asked()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"absent": 5.0, "within": 5.0}, "absent: found with within=, too"),
        ({"above": 5.0, "window": 1e9}, "window: found 1000000000.0, expected seconds above 0, up to a day"),
    ],
)
def test_what_no_rule_can_do_is_refused_at_once(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rule("r", "level", **wrong)
    assert named in str(caught.value)


def test_what_one_has_of_its_own_and_what_follows_from_one_that_is_silenced_is_told() -> None:
    house, own = House(), {"ill"}
    alerts = Alerts(
        *(house.history, [Rule("bad", "level", above=1.0, by=("service",))]),
        clock=house.clock,
        wall=house.clock,
        channels=[house.hear],
        needs=lambda name: {"ill": {"base"}, "app": {"base"}}.get(name, ()),
        of_its_own=lambda name: name in own,
    )
    for name in ("app", "ill", "base"):
        house.metrics.gauge("level", service=name).set(2.0)
    house.clock.advance(1.0)
    alerts.step()
    [told] = house.told
    assert {line.partition(":")[0] for line in told.splitlines()} == {"ill", "base"}
    alerts.silence(3600.0, service="base")
    house.clock.advance(1.0)
    alerts.step()
    assert [text.partition(":")[0] for text in house.told[1:]] == ["app"], "nobody is told of it otherwise"


def _exits(history: History, now: float) -> Any:
    raise SystemExit(1)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda history, now: {"asr": 5.0}, "such as {(('service', 'asr'),): 5.0}"),
        (lambda history, now: {("service", "asr"): 5.0}, "such as {(('service', 'asr'),): 5.0}"),
        (lambda history, now: {(): "much"}, "not a number"),
        (lambda history, now: None, "not a number"),
        (_exits, "SystemExit: 1"),
    ],
)
def test_a_function_that_answers_in_another_form_is_broken_and_silences_nobody(
    house: House, function: Any, told: str
) -> None:
    house.alerts.add(Rule("mine", function, above=1.0))
    house.alerts.add(LEVEL)
    house.level(12.0)
    assert house.told == ["the kernel: high (warning): 12, above 10 → turn it down"]
    mine = house.alerts.rules[0]
    assert house.alerts.state_of(mine).startswith("broken: ")
    assert told in house.alerts.state_of(mine)
    assert "high" in repr(house.alerts)


def test_a_function_may_give_a_number_or_numbers_by_tags(house: House) -> None:
    house.alerts.add(Rule("one", lambda history, now: 5, above=1.0))
    house.alerts.add(Rule("some", lambda history, now: {(("service", "asr"),): 5.0}, above=1.0))
    house.wait(1)
    assert {(one.rule, one.subject) for one in house.alerts.active} == {
        ("one", "the kernel"),
        ("some", "asr"),
    }


def test_a_function_that_hangs_is_named_and_holds_up_nobody() -> None:
    house = House()
    jobs: list[Any] = []
    alerts = Alerts(
        *(house.history,),
        clock=house.clock,
        wall=house.clock,
        channels=[house.hear],
        work=lambda job, **_: jobs.append(job),
    )
    figures = [5.0]

    def ask(history: History, now: float) -> float:
        if not figures:
            house.clock.advance(12.0)  # it hangs, and meanwhile
            look()
        return figures[0] if figures else 0.0

    def look() -> None:
        house.clock.advance(1.0)
        for _ in alerts.steps():
            pass

    alerts.add(Rule("mine", ask, above=1.0))
    alerts.add(LEVEL)
    mine = alerts.rules[0]
    look()
    assert len(jobs) == 1 and alerts.state_of(mine) == "quiet", "nobody waits for it"
    jobs.pop()()
    look()
    assert alerts.state_of(mine) == "fires"
    figures.clear()
    house.metrics.gauge("level").set(12.0)
    jobs.pop()()
    assert not jobs, "it is not asked twice"
    assert alerts.state_of(mine) == "broken: it has not answered for 13 s"
    assert "the kernel: high (warning): 12, above 10 → turn it down" in house.told
    look()
    assert alerts.state_of(mine) == "quiet"

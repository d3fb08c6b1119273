"""A kernel that is killed while it writes: what it was told is kept is there, whole, and the file opens."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grym_nb.context import ContextStore

_WRITING = """
import sys
import numpy as np
from grym_nb.context import ContextStore
from tests.context.test_kill import content

path, seed = sys.argv[1], int(sys.argv[2])
with ContextStore(path, max_bytes=300_000) as store:
    n = seed * 1_000_000
    while True:
        n += 1
        print("put", n, flush=True)
        item = store.put(content(n), type="made", key=str(n), ttl=None, durable=True)
        print("kept", n, item.id, 1, n, flush=True)
        if n % 3 == 0:
            print("put", n, flush=True)
            store.update(item.id, content(n + 500_000), expect=1)
            print("kept", n, item.id, 2, n + 500_000, flush=True)
"""


def content(n: int) -> dict[str, object]:
    """What has the number `n`: small or large, text or numbers, that get smaller or not."""
    made = np.random.default_rng(n)
    size = int(made.integers(0, 20_000)) if n % 2 else 5
    array = made.normal(size=size) if n % 4 == 1 else np.arange(size, dtype="f4")
    return {"n": n, "array": array, "text": f"number {n} " * (n % 50)}


def exact(found: dict[str, object], n: int) -> bool:
    want = content(n)
    return (
        list(found) == list(want)
        and (found["n"], found["text"]) == (want["n"], want["text"])
        and np.asarray(found["array"]).tobytes() == np.asarray(want["array"]).tobytes()
    )


def killed(path: Path, seed: int, after: int) -> tuple[dict[str, tuple[int, int]], str]:
    """Let a child write, and kill it after some lines; return what it acknowledged, and its last."""
    kept: dict[str, tuple[int, int]] = {}
    under_way = ""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITING, str(path), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        for lines, line in enumerate(child.stdout, 1):  # to the end: what it said before it died counts
            if not line.endswith("\n"):
                break  # it died in the middle of saying so
            what, n, *rest = line.split()
            if what == "kept":
                id, version, number = rest
                kept[id] = int(version), int(number)
            under_way = n if what == "put" else ""
            if lines == after:
                child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    return kept, under_way


@pytest.mark.slow
@pytest.mark.parametrize("again", [0, *(pytest.param(n, marks=pytest.mark.full) for n in range(1, 10))])
def test_a_killed_kernel_loses_nothing_that_was_acknowledged(tmp_path: Path, again: int) -> None:
    """Killed at random points, again and again on one file: at most the one under way is there besides."""
    path = tmp_path / "context.db"
    chance = random.Random(again)
    times = 20
    everything: dict[str, tuple[int, int]] = {}
    besides = 0
    for seed in range(again * times, again * times + times):
        kept, under_way = killed(path, seed, chance.randint(1, 60))
        everything |= kept
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
        with ContextStore(path) as store:
            found = {item.id: item for item in store.query(type="made")}
            for id in everything.keys() - kept.keys():  # looked at in full when they were new
                assert found[id].version == everything[id][0]
            for id, (version, number) in kept.items():
                item = found[id]
                if item.version != version:  # the update that nobody heard the end of
                    assert (item.version, item.key) == (version + 1, under_way)
                    number, besides = int(under_way) + 500_000, besides + 1
                    everything[id] = (item.version, number)
                assert exact(item.content, number)
            for id in found.keys() - everything.keys():
                assert found[id].key == under_way and exact(found[id].content, int(under_way))
                everything[id] = (1, int(under_way))
                besides += 1
            assert len(found) == len(everything)
    assert len(everything) > times and besides <= times

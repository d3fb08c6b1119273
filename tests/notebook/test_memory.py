"""Memory in a real kernel: back with the system after an unload, or told who holds it; `%grym mem`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grym_nb.hardening.replay import read
from grym_nb.hardening.returning import can_trim
from tests.kernel import Kernel

MB = 1_000_000

SERVICE = """
%load_ext grym_nb
import gc
import grym_nb as grym, numpy as np
from grym_nb.devices import process_memory

class Big(grym.ModelService):
    '''Many tensors, each with a small survivor beside it: what a heap gives back least gladly.'''
    def __init__(self, *, mb: int = 400):
        self.mb = mb
    def load(self):
        rng = np.random.default_rng(0)
        self.parts, self.small, left = [], [], self.mb * 1_000_000
        while left > 0:
            size = min(int(rng.integers(500_000, 4_500_000)), left)
            self.parts.append(ones(size))
            SURVIVORS.append(bytes(3000))
            left -= size
    @grym.task
    def count(self) -> int:
        return len(self.parts)
    @grym.task
    def part(self):
        return self.parts[0]
    @grym.task
    def fail(self):
        mine = self.parts
        raise ValueError("as asked")

SURVIVORS = []
def ones(size):
    return np.ones(size, np.uint8)
def own():
    return process_memory().anonymous
big = grym.register("big", Big)
grym.register("twin", Big, config={"mb": 1}).load().unload()
before = own()
"""


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as running:
        running.run(SERVICE).checked()
        yield running


def number(kernel: Kernel, expression: str) -> int:
    text = kernel.run(f"int({expression})").checked().result_text
    assert text is not None
    return int(text)


def own(kernel: Kernel) -> int:
    return number(kernel, "own() - before")


needs_proc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not can_trim(), reason="needs /proc and malloc_trim"
)


TORCH = """
import torch
def ones(size):
    return torch.ones(size, dtype=torch.uint8)
twin = grym.register("twin", Big, config={"mb": 1}).load()
twin.count.submit().result()
twin.unload()
before = own()
"""


@needs_proc
@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_after_each_unload_the_bytes_are_back_with_the_system(kernel: Kernel, kind: str) -> None:
    if kind == "tensors":
        pytest.importorskip("torch")
        kernel.run(TORCH).checked()
    assert number(kernel, "big.count()") >= 150
    for call in (
        "big.count()",
        "big.count.submit().result()",
        "big.count.submit().result()",
        "await big.count.submit()",
    ):
        kernel.run(call).checked()
        assert own(kernel) >= 390 * MB
        kernel.run("big.unload()").checked()
        assert own(kernel) <= 0.05 * 400 * MB, call
    assert "still there" not in (kernel.run("%grym mem").checked().result_text or "")


@needs_proc
def test_an_error_and_a_display_hold_nothing_of_a_model_or_are_named(kernel: Kernel) -> None:
    kernel.run("big")
    assert kernel.run("big.fail()").error is not None
    kernel.run("big.part()").checked()
    kernel.run("kept = big.part()").checked()
    kernel.run("big.unload()").checked()
    assert own(kernel) <= 0.05 * 400 * MB
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert "still there of what is over" in shown
    assert "Out[" in shown and "the variable kept" in shown and "del kept" in shown
    assert "traceback" not in shown, "its frames were let go of"
    freed = kernel.run("%grym mem --free").checked().result_text or ""
    assert "let go of Out[" in freed and "the variable kept" in freed
    kernel.run("del kept").checked()
    freed = kernel.run("%grym mem --free --why").checked().result_text or ""
    assert "still there" not in freed and "went back" in freed and "nobody had to go" in freed


@needs_proc
@pytest.mark.parametrize(
    ("holding", "named"),
    [
        ("with big.use() as model: pass\nmodel", "Out["),
        ("with big.use() as model: raise ValueError('in the block')", "the variable model"),
        ("def leak(it):\n    raise ValueError('mine')\nwith big.use() as m: leak(m)", "the last traceback"),
        ("import types, sys\nplugin = types.ModuleType('plugin')\nsys.modules['plugin'] = plugin\n"
         "with big.use() as m: plugin.cache = [m.parts]\ndel m, plugin", "plugin.cache"),
    ],
)  # fmt: skip
def test_who_holds_a_whole_model_is_named_and_what_is_ours_to_free_is_freed(
    kernel: Kernel, holding: str, named: str
) -> None:
    kernel.run(holding)
    kernel.run("big.unload()").checked()
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert named in shown, shown
    kernel.run("%grym mem --free").checked()
    kernel.run("for name in ('model', 'm'): dropped = globals().pop(name, None)\ndel dropped").checked()
    kernel.run("import sys\nif 'plugin' in sys.modules: del sys.modules['plugin']").checked()
    kernel.run("%grym mem --free").checked()
    assert own(kernel) <= 0.05 * 400 * MB


def test_the_books_the_budget_and_why_somebody_went(kernel: Kernel) -> None:
    kernel.run("small = [grym.register(f's{n}', Big, config={'mb': 2}) for n in range(3)]").checked()
    kernel.run("%grym mem --budget 5MB").checked()
    kernel.run("for s in small: s.count()").checked()
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert "total" in shown and "5.0 MB" in shown and "s2" in shown
    assert ("s0" in shown) != ("s1" in shown)
    why = kernel.run("%grym mem --why").checked().result_text or ""
    assert "evicted: s" in why and "s2" in why and "cost_rate" in why
    shown = kernel.run("%grym mem --budget cpu=1GB").checked().result_text or ""
    assert "1.0 GB" in shown and "total" not in shown
    assert "(0%)" in shown and "of what had been there before" not in shown
    kernel.run("for s in small: s.unload(), s.count()").checked()
    assert "of what had been there before" in (kernel.run("%grym mem").checked().result_text or "")
    shown = kernel.run("%grym mem --budget cpu=71 TB total=72 TB").checked().result_text or ""
    assert "71.0 TB" in shown and "72.0 TB" in shown
    shown = kernel.run("%grym mem --budget cpu=none total=1GB").checked().result_text or ""
    assert "71.0 TB" not in shown
    error = kernel.run("%grym mem --budget lots").error
    assert error is not None and "'lots' is not a size" in error.evalue
    assert "nobody had to go" not in why


TIGHT = """%%grym service tight --budget 3MB mb=2
class Tight(Big):
    @grym.task(batch="items")
    def halves(self, items):
        if len(items) > 2:
            raise MemoryError("Unable to allocate 7 GiB")
        return items
"""


def test_a_service_with_a_budget_and_a_batch_in_parts_are_shown(kernel: Kernel) -> None:
    kernel.run(TIGHT).checked()
    kernel.run("answers = grym.get('tight').halves([1, 2, 3, 4, 5, 6, 7])").checked()
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert "budget 3.0 MB" in shown
    assert "computed in parts, as memory ran out" in shown and "tight.halves" in shown
    why = kernel.run("%grym mem --why").checked().result_text or ""
    assert "parted" in why and "tight.halves ran out of memory with 4 at a time" in why
    kernel.run(TIGHT.replace("mb=2", "mb=4")).checked()
    error = kernel.run("grym.get('tight').count()").error
    assert error is not None and "it takes 4.0 MB, and its budget is 3.0 MB" in error.evalue


def test_what_a_kernel_did_is_a_trace_to_compare_policies_on(kernel: Kernel, tmp_path: Path) -> None:
    shown = kernel.run(f"%grym mem --trace {tmp_path / 'none' / 'day.jsonl'}").checked().result_text or ""
    assert "nothing was written" in shown
    kernel.run("for n in range(3): grym.register(f's{n}', Big, config={'mb': 2}).count()").checked()
    file = tmp_path / "day.jsonl"
    shown = kernel.run(f"%grym mem --trace {file}").checked().result_text or ""
    assert "3 calls of 3 services" in shown
    uses = read(file)
    assert [use.service for use in uses] == ["s0", "s1", "s2"]
    assert all(2_000_000 <= use.bytes < 3_000_000 and use.load_seconds > 0 for use in uses)
    error = kernel.run(f"%grym mem --trace {tmp_path / 'none' / 'day.jsonl'}").error
    assert error is not None and "No such file" in error.evalue


@needs_proc
def test_what_was_freed_is_what_went_back(kernel: Kernel) -> None:
    kernel.run("with big.use() as model: parts = list(model.parts)\nparts").checked()
    kernel.run("del model, parts").checked()
    assert "still held by something else" in kernel.run("big.unload()").checked().stderr
    freed = kernel.run("%grym mem --free").checked().result_text or ""
    assert "let go of Out[" in freed and "still there" not in freed
    said = re.search(r"(\d+) MB went back", freed)
    assert said is not None and int(said[1]) >= 380, freed


@needs_proc
def test_what_a_failed_call_made_is_shown_and_let_go_of(kernel: Kernel) -> None:
    kernel.run(
        "class Fails(grym.ModelService):\n"
        "    @grym.task\n"
        "    def ask(self):\n"
        "        made = np.ones(100_000_000, np.uint8)\n"
        "        raise ValueError('after it was made')\n"
        "fails = grym.register('fails', Fails)"
    ).checked()
    assert kernel.run("fails.ask()").error is not None
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert "fails.ask" in shown and "100 MB" in shown and "frames of the last failure" in shown
    freed = kernel.run("%grym mem --free").checked().result_text or ""
    assert "let go of the frames of the last failure" in freed and "still there" not in freed
    assert own(kernel) < 20 * MB


def test_an_array_that_looks_at_a_tensor_and_an_item_of_context_are_named(kernel: Kernel) -> None:
    pytest.importorskip("torch")
    kernel.run(
        "import torch\n"
        "class Net(grym.ModelService):\n"
        "    def load(self):\n"
        "        self.weight = torch.ones(20_000_000)\n"
        "    @grym.task\n"
        "    def first(self):\n"
        "        return self.weight[:10].numpy()\n"
        "net = grym.register('net', Net)\nview = net.first()"
    ).checked()
    assert "80.0 MB of net is still held" in kernel.run("net.unload()").checked().stderr
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert "the variable view" in shown and "del view" in shown
    kernel.run("del view\nctx = grym.current().context\nruntime = grym.current()").checked()
    kernel.run(
        "with net.use() as model: kept = ctx.put(model.weight, type='weights').id\ndel model"
    ).checked()
    kernel.run("net.unload()").checked()
    shown = kernel.run("%grym mem").checked().result_text or ""
    name = (kernel.run("kept").checked().result_text or "").strip("'")
    assert "the context has 80.0 MB of it" in shown
    assert f"the context ({name})" in shown and f"%grym context rm {name}" in shown
    assert "the variable" not in shown
    kernel.run(f"%grym context rm {name}").checked()
    assert "still there" not in (kernel.run("%grym mem").checked().result_text or "")


GIVES = """
class Gives(grym.ModelService):
    def load(self):
        self.parts = [np.ones(1_000_000, np.uint8) for _ in range(200)]
    @grym.task
    def giveall(self):
        return self.parts
gives = grym.register("gives", Gives)
"""


@needs_proc
@pytest.mark.parametrize(
    ("holding", "name", "todo"),
    [
        ("kept = gives.giveall()", "the variable kept", "del kept"),
        ("class K:\n    cache = gives.giveall()", "K.cache", "del K.cache"),
        ("import contextvars\nvar = contextvars.ContextVar('w')\nvar.set(gives.giveall());",
         "the context variable 'w' (var)", "var.set(None);"),
        ("import functools\n@functools.cache\ndef cached(): return gives.giveall()\ncached();",
         "the variable cached", "cached.cache_clear()"),
    ],
)  # fmt: skip
def test_what_the_report_says_to_do_gives_the_bytes_back(
    kernel: Kernel, holding: str, name: str, todo: str
) -> None:
    kernel.run(GIVES).checked()
    kernel.run(holding).checked()
    assert "200 MB of gives is still held" in kernel.run("gives.unload();").checked().stderr
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert re.search(rf"gives +200 MB +{re.escape(name)} +{re.escape(todo)}", shown), shown
    kernel.run(todo).checked()
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert "200 MB of gives, which nobody holds any more, went back to the system" in shown
    assert "still there" not in shown and own(kernel) < 20 * MB


@needs_proc
def test_what_its_holder_lets_go_of_goes_back_also_where_nobody_looks(kernel: Kernel) -> None:
    kernel.run(GIVES).checked()
    kernel.run("kept = gives.giveall()\ngives.unload();").checked()
    kernel.run(
        "import threading\n"
        "import grym_nb.hardening.leftovers as at\n"
        "back, give_back = threading.Event(), at.give_back\n"
        "def told():\n    give_back()\n    back.set()\n"
        "at.give_back = told\n"
        "del kept"
    ).checked()
    kernel.run("assert back.wait(30)").checked()
    assert own(kernel) < 20 * MB


def test_who_holds_the_same_shares_a_line_of_the_report(kernel: Kernel) -> None:
    kernel.run(GIVES).checked()
    kernel.run("kept = gives.giveall()").checked()
    kernel.run("few = kept[:50]").checked()
    kernel.run("kept").checked()
    kernel.run("gives.unload();").checked()
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert re.search(r"gives +200 MB +Out\[\d+\] and the variable kept +%grym mem --free; del kept", shown), (
        shown
    )
    assert re.search(r"gives +50.0 MB, as above +the variable few +del few", shown), shown


def test_of_what_was_loaded_and_let_go_of_again_each_byte_is_told_once(kernel: Kernel) -> None:
    kernel.run(GIVES).checked()
    kernel.run(
        "FIXED = np.ones(30_000_000, np.uint8)\n"
        "class Fixed(grym.ModelService):\n"
        "    def load(self):\n        self.part = FIXED\n"
        "    @grym.task\n    def size(self):\n        return self.part.nbytes\n"
        "fixed = grym.register('fixed', Fixed).load()\n"
        "fixed.unload();"
    ).checked()
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert len(re.findall(r"fixed +30.0 MB +the variable FIXED", shown)) == 1, shown
    shown = kernel.run("fixed.load();\n%grym mem").checked().result_text or ""
    assert "still there" not in shown, "it has it by right again"
    shown = kernel.run("fixed.unload();\n%grym mem").checked().result_text or ""
    assert len(re.findall(r"fixed +30.0 MB +the variable FIXED", shown)) == 1, shown


SCRIPT = (
    SERVICE.replace("%load_ext grym_nb\n", "")
    + GIVES
    + """
import gc

def main():
    kept = gives.giveall()
    gives.unload()
    shown = repr(grym.current().resources.memory())
    assert "200 MB  the variable kept in main()  del kept" in shown, shown

main()
assert "200 MB of gives, which nobody holds any more, went back" in repr(grym.current().resources.memory())
try:
    big.fail()
except grym.GrymError:
    pass
cache = gives.giveall()
gives.unload()
pool = grym.current().resources
shown = repr(pool.memory())
assert "200 MB  the variable cache" in shown and "del cache" in shown, shown
assert "this process has" in shown and "of what had been there before" in shown, shown
del cache
freed = pool.free()
assert "let go of" in repr(freed) and freed.left.rows == [], freed
assert own() - before < 20_000_000 + 400_000_000, own() - before
"""
)


@needs_proc
def test_a_script_is_told_the_same_by_what_it_can_call(tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    ran = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    told = (
        "200 MB of gives is still held by something else: print(grym.current().resources.memory()) names it"
    )
    assert told in ran.stderr and "%grym" not in ran.stderr


def test_an_output_that_holds_it_in_a_way_of_its_own_is_named(kernel: Kernel) -> None:
    kernel.run(GIVES).checked()
    kernel.run("import functools\ndef made(): return gives.giveall()\nfunctools.cache(made)").checked()
    kernel.run("Out[max(Out)]();").checked()
    kernel.run("gives.unload();").checked()
    shown = kernel.run("%grym mem").checked().result_text or ""
    assert re.search(r"gives +200 MB +Out\[\d+\] +%grym mem --free", shown), shown
    kernel.run("%grym mem --free").checked()
    assert "still there" not in (kernel.run("%grym mem").checked().result_text or "")

"""What `inspect.getsource` shows of classes that cells define."""

from __future__ import annotations

import ast

from tests.kernel import Kernel

GAIN = """%%grym service sourced
class Sourced(grym.ModelService):
    @grym.task("audio.sourced")
    def apply(self, x):
        return x + 1
"""


def test_the_source_of_a_class_of_a_cell_is_shown_in_each_version(shared_kernel: Kernel) -> None:
    """Python itself finds none, and says so: ours are found, and any other that has methods."""
    run = shared_kernel.run
    run("import inspect\nclass Plain:\n    def f(self): return 1").checked()
    assert run("inspect.getsource(Plain)").error is not None
    run("%load_ext grym_nb\nimport grym_nb as grym").checked()
    run(GAIN).checked()
    run("kept = Sourced").checked()
    run(GAIN.replace("x + 1", "x + 2")).checked()
    shown = GAIN.partition("\n")[2]
    reply = run("[inspect.getsource(one) for one in (kept, Sourced)]").checked()
    assert ast.literal_eval(reply.result_text or "") == [shown, shown.replace("x + 1", "x + 2")]
    assert "return 1" in run("print(inspect.getsource(Plain))").checked().stdout
    assert run("class Empty: pass\ninspect.getsource(Empty)").error is not None
    run("%unload_ext grym_nb").checked()
    assert run("inspect.getsource(Plain)").error is not None

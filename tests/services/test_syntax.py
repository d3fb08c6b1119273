"""A text is read whichever threads read others at once."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from grym_nb.services.syntax import parsed
from tests.services.crowd import outcome, start

TEXT = "def f(x):\n    return [" + ", ".join(f"x + {n}" for n in range(200)) + "]\n"


def test_threads_that_read_at_once_all_get_their_tree() -> None:
    whole = ast.dump(ast.parse(TEXT))
    running = [start(lambda: [ast.dump(parsed(TEXT)) == whole for _ in range(20)]) for _ in range(8)]
    assert all(all(outcome(one)) for one in running)


def test_who_comes_between_from_elsewhere_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real, raised = ast.parse, [SystemError("recursion depth mismatch")] * 3

    def parse(*given: Any) -> ast.Module:
        if raised:
            raise raised.pop()
        return real(*given)

    monkeypatch.setattr(ast, "parse", parse)
    assert ast.dump(parsed("1")) == ast.dump(real("1")) and raised == []


def test_what_is_wrong_with_it_is_raised_with_its_place() -> None:
    with pytest.raises(SyntaxError) as wrong:
        parsed("x =\n", "speech.py")
    assert (wrong.value.filename, wrong.value.lineno) == ("speech.py", 1)

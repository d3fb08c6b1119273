"""The magic itself: `%grym` and `%%grym` as one function that IPython can hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grym_nb.notebook.commands import COMMANDS, dispatch

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Magic", "magic_for", "usage"]

#: what IPython calls: the line, and the rest of the cell when there were two % signs
Magic = Callable[..., Any]


def magic_for(shell: InteractiveShell) -> Magic:
    """Return the function behind `%grym` and `%%grym` in a shell."""
    from IPython.core.magic import no_var_expand

    def grym(line: str = "", cell: str | None = None) -> object:
        __tracebackhide__ = True
        try:
            return dispatch(shell, line, cell)
        except SyntaxError as error:
            # IPython shows every frame of one that a magic raises, and none of ours is of use to its author.
            raise error.with_traceback(None) from None

    grym.__doc__ = usage()
    # IPython's own expansion of $x and {x} evaluates whatever stands there.
    marked: Magic = no_var_expand(grym)
    return marked


def usage() -> str:
    """Return how every command is typed, with examples to copy: what ``%grym?`` shows."""
    told = ["The services of this kernel: `%grym COMMAND ...`; alone it is the table of services.", ""]
    for known in COMMANDS:
        told += [known.line, f"    {known.about}"]
        told += [f"        {line}" for example in known.examples for line in example.splitlines()]
    told += [
        "",
        "$name or {name} as a word of its own passes the object of that name; 3, [1, 2] and None are what",
        "they are in Python; anything else is text. A semicolon at the end shows nothing.",
    ]
    return "\n".join(told)

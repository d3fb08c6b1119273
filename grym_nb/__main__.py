"""`python -m grym_nb demo | doctor`: try it out, and see what is wrong, without opening a notebook."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from grym_nb.errors import GrymError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status."""
    given = _parser().parse_args(arguments)
    try:
        return _demo(given.notebook) if given.command == "demo" else _doctor()
    except GrymError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    from grym_nb.notebook.demo import QUICKSTART

    parser = argparse.ArgumentParser(prog="python -m grym_nb", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="run a tutorial notebook here in the terminal")
    demo.add_argument(
        "--notebook", default=QUICKSTART, metavar="NAME", help="which one (default: %(default)s)"
    )
    commands.add_parser("doctor", help="versions, devices, and what is wrong with this environment")
    return parser


def _demo(notebook: str) -> int:
    from grym_nb.notebook.demo import find, play

    return play(find(notebook), lambda text: print(text, flush=True), colour=sys.stdout.isatty())


def _doctor() -> int:
    from grym_nb.notebook.doctor import examine

    report = examine()
    print(report.text())
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.benchmarks [NAME ...] [--quick] [--json FILE]``: one table, and the same as JSON."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import tests.benchmarks
from tests.benchmarks.frame import BENCHMARKS, QUICK, Effort, run, table, write


def load() -> None:
    """Import every module here, so that each declares its benchmarks."""
    for module in pkgutil.iter_modules(tests.benchmarks.__path__):
        if not module.name.startswith(("test_", "__")):
            importlib.import_module(f"{tests.benchmarks.__name__}.{module.name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit status is 1 when a benchmark failed."""
    load()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (all)")
    parser.add_argument("--quick", action="store_true", help="rough figures, to see that everything runs")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), metavar="FILE")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.names) - BENCHMARKS.keys()):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    rows, failed = run(asked.names, QUICK if asked.quick else Effort())
    print(table(rows).text())
    write(rows, asked.json)
    for name, error in failed.items():
        print(f"\n{name} failed:", file=sys.stderr)
        traceback.print_exception(error)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

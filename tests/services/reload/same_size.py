"""Edits a module a few times within its second, each time by one character, and prints what is answered."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from grym_nb.services import ServiceRegistry
from tests.services.reload.kinds.kind import service

folder = Path(sys.argv[1])
text = service("return x + 1")
(folder / "m.py").write_text(text)
sys.path.insert(0, str(folder))
registry = ServiceRegistry()
served = registry.register("service", importlib.import_module("m").S)
answers, hows = [served.ask()], []
for added in (2, 3, 4):
    (folder / "m.py").write_text(text.replace("x + 1", f"x + {added}"))
    hows.append(served.reload().how)
    answers.append(served.ask())
registry.close()
cached = importlib.import_module("m").__cached__
sys.stdout.write(json.dumps({"answers": answers, "hows": hows, "bytecode": Path(cached).exists()}))

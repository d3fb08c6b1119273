"""Pictures of the dashboard, from the real page: ``python -m tests.browser.screenshots FOLDER [SCENE...]``.

Each scene is drawn at 900 and at 1600 pixels, in light and in dark; with ``--readme`` those of the README.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.lab import CHROMIUM_FLAGS, Lab, Notebook

__all__ = ["SCENES", "main"]

_HEAD = """
%load_ext grym_nb
import random, threading, time
import grym_nb as grym
random.seed(3)

class Model(grym.ModelService):
    def __init__(self, *, mb: int = 40, pace: float = 0.02):
        self.mb, self.pace = mb, pace

    def load(self):
        import torch
        self.weights = torch.ones(self.mb * 250_000)

    @grym.task
    def transcribe(self, clip: int = 0) -> int:
        if clip < 0:
            raise ValueError("the clip is silent: nothing above -70 dB")
        time.sleep(self.pace * random.lognormvariate(0, 0.5))
        return clip

    @grym.task
    def generate(self, steps: int = 100) -> int:
        for _ in grym.track(range(steps)):
            time.sleep(0.1)
        return steps
"""
_THREE = """
asr = grym.register("wav2vec2-base", Model, config=dict(mb=180, pace=0.02), memory="200MB")
gen = grym.register("audioldm2", Model, config=dict(mb=420, pace=0.05), memory="450MB")
tag = grym.register("ast-tagger", Model, memory="90MB")
grym.current().resources.budget("2GB")
gen.transcribe()
until = time.monotonic() + 40
while time.monotonic() < until:
    try:
        asr.transcribe(random.choice([1] * 60 + [-1]))
        if random.random() < 0.2:
            gen.transcribe()
    except grym.GrymError:
        pass
call = gen.generate.submit(400)
"""
_FORTY = """
class Broken(Model):
    def load(self):
        raise OSError("checkpoint /models/gama-7b is not there: 14 shards were expected, 0 found")

for n in range(40):
    kind = Broken if n % 13 == 5 else Model
    name = ("speech", "music", "tagger", "embedding")[n % 4] + f"-{n:02}"
    grym.register(name, kind, config=dict(mb=1 + 7 * (n % 5), pace=0.002), memory=f"{20 + n}MB")
long = grym.register("a-service-with-a-name-that-somebody-made-by-joining-everything-it-does-" * 2, Model)
until = time.monotonic() + 25
while time.monotonic() < until:
    handle = grym.current().registry.handles()[1 + random.randrange(30)]
    try:
        handle.transcribe(random.choice([1] * 4 + [-1]) if "music" in handle.name else 1)
    except grym.GrymError:
        pass
calls = [grym.get("speech-00").generate.submit(300), grym.get("speech-04").generate.submit(900)]
"""
#: what stands in the registry, by name
SCENES = {"empty": "", "three": _THREE, "forty": _FORTY}
_SIZES = (900, 1600)


def main(folder: Path, scenes: list[str], *, readme: bool = False) -> list[Path]:
    """Draw scenes into a folder; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    with Lab() as lab, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(CHROMIUM_FLAGS)
        )
        for scene in scenes:
            page = chromium.new_page(viewport={"width": 1700, "height": 1900})
            notebook = Notebook(page, lab).open(
                f"{scene}.ipynb", _HEAD, "%grym dashboard", SCENES[scene] or "pass"
            )
            page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
            for at in range(3):
                notebook.run(at)
            page.get_by_role("button", name="1 min", exact=True).click()
            if readme:
                made += _pictures(notebook, folder, "dashboard", (1180,))
            else:
                made += _pictures(notebook, folder, scene, _SIZES)
            page.close()
            lab.end_kernels()
        chromium.close()
    return made


def _pictures(notebook: Notebook, folder: Path, name: str, sizes: tuple[int, ...]) -> list[Path]:
    page, made = notebook.page, []
    for theme in ("Light", "Dark"):
        notebook.theme(f"JupyterLab {theme}")
        for size in sizes:
            _resize(page, size)
            path = folder / f"{name}-{theme.lower()}{f'-{size}' if len(sizes) > 1 else ''}.png"
            page.locator(".grym-board").screenshot(path=path)
            made.append(path)
    return made


def _resize(page: Page, size: int) -> None:
    """Make the board so wide, and let it draw itself."""
    page.set_viewport_size({"width": size + 130, "height": 1900})
    page.locator(".grym-board").evaluate("(node, size) => { node.style.width = `${size}px`; }", size)
    page.mouse.move(0, 0)
    page.evaluate("() => new Promise((done) => setTimeout(done, 1500))")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    for path in main(Path(words[0]), words[1:] or list(SCENES), readme="--readme" in sys.argv):
        print(path, path.stat().st_size)  # noqa: T201

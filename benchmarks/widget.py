"""How long the annealing figure takes to redraw: every move over 21 moments of 19 layers, headless Chromium.

Run ``python benchmarks/widget.py [page.html]``; without a page it draws a seeded example of ResNet-20's size. It prints
three times for a move: the script alone (what the figure reports in ``data-redraw-ms``), with style and layout, and
until the frame that shows it, which the display's rate bounds from below. Goal: 16 ms of work at most.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from lab.book import benchmarks
from lab.figures.annealing.recording import Snapshot
from lab.figures.annealing.widget import AnnealingWidget

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
MEASURE = """async () => {
  const root = document.querySelector('.pa-annealing');
  const slider = root.querySelector('input');
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const times = [];
  for (let pass = 0; pass < 3; pass++) {
    for (let i = 0; i <= 20; i++) {
      await frame();
      const begun = performance.now();
      slider.value = Number(slider.max) * i / 20;
      slider.dispatchEvent(new Event('input'));
      const script = Number(root.dataset.redrawMs);
      root.getBoundingClientRect();
      root.querySelector('.pa-curve').getBBox();  // style and layout are work too
      const work = performance.now() - begun;
      await frame();
      times.push([script, work, performance.now() - begun]);
    }
  }
  return times;
}"""


def example() -> str:
    rng = np.random.default_rng(0)
    layers = {f"layer {i}": 14_000 for i in range(19)}
    s = rng.normal(-0.05, 0.06, 19 * 14_000).astype(np.float32)
    moments = [Snapshot(p, 15 * p, 200**p, s * (0.1 + p), 0.1 + 0.4 * p) for p in np.linspace(0, 1, 21).tolist()]
    figure = AnnealingWidget.from_snapshots(
        moments, layers, title="Seeded example", profile="benchmark", run="none", hardened=(0.5, 0.9), dense=0.5
    )
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{figure.static_html()}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", nargs="?", type=Path, help="a built page that holds the figure")
    benchmarks.option(parser)
    options = parser.parse_args()
    page_file = options.page
    report = benchmarks.Report(__file__)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("no Chromium on this machine; install one (apt install chromium)")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        if page_file is None:
            page_file = Path(folder, "figure.html")
            page_file.write_text(example(), encoding="utf-8")
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector("[data-redraw-ms]")
        times = page.evaluate(MEASURE)
        print(
            f"Chromium {browser.version}, {platform.machine()}, {len(times)} moves; {page_file.stat().st_size:,} bytes"
        )
        browser.close()
    for name, column in zip(
        ("script", "script, style and layout", "until the frame"), zip(*times, strict=True), strict=True
    ):
        print(f"{name:>26}: median {statistics.median(column):6.2f} ms, max {max(column):6.2f} ms")
        goal = None if name == "until the frame" else 16.0
        report.ratio(f"a redraw, {name}: median", statistics.median(column), at_most=goal, unit="ms")
        report.ratio(f"a redraw, {name}: most", max(column), at_most=goal, unit="ms")
    report.write(options.json)


if __name__ == "__main__":
    main()

"""Shipped networks in a browser, skipping zeros against multiplying them: headless Chromium, one worker.

Run ``python benchmarks/browser.py``. It prints for each shipped network the median time of an image with either loop,
and the largest difference of a score from PyTorch's on the embedded test images; for the sparsest one also the time of
a re-check on all of them, and the longest frame of the page meanwhile, with a worker and without one.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import Page, sync_playwright

from lab.book import benchmarks
from lab.datasets import load
from lab.figures.run_here import state as run_here
from lab.figures.run_here.program import program
from lab.figures.run_here.widget import ENGINE, HERE, RunHereWidget
from lab.figures.widget import module
from lab.runs import recheck
from principled.files import load as load_file

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
LOAD = """async ({ name, file, program, images }) => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  globalThis.room ??= engineRoom();
  if (images) globalThis.images = bytes(images);
  const { layers } = await room.ask({ do: "load", name, file: await unwrap(bytes(file)), program });
  return layers.reduce((sum, layer) => sum + layer.kept * layer.positions, 0);
}"""
TIME = """async ({ name, repeats }) => {
  const pixels = images.subarray(0, 3072);
  const ms = { sparse: [], dense: [] };
  for (let round = 0; round < 3; round++) {  // side by side, so that what else the machine does hits both
    for (const loop of ["sparse", "dense"]) {
      ms[loop].push((await room.ask({ do: "answer", name, pixels, dense: loop === "dense", repeats })).ms);
    }
  }
  return [ms.sparse[2], ms.dense[2]];
}"""
SCORES = """async ({ name, first, count }) => {
  const all = [];
  for (let n = first; n < first + count; n++) {
    const pixels = images.subarray(3072 * n, 3072 * (n + 1));
    all.push((await room.ask({ do: "answer", name, pixels, dense: false })).scores);
  }
  return all;
}"""
FRAMES = """async () => {
  const root = document.querySelector('.pa-run');
  delete root.dataset.rechecked;
  let [longest, last, on] = [0, 0, true];
  const frame = (now) => {
    if (last) longest = Math.max(longest, now - last);
    last = now;
    if (on) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  const begun = performance.now();
  root.querySelector('.pa-recheck .pa-button').click();
  while (!root.dataset.rechecked) await new Promise((done) => setTimeout(done, 20));
  on = false;
  return [longest, (performance.now() - begun) / 1000];
}"""


def text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def difference(page: Page, network: run_here.Shipped, count: int) -> tuple[float, int]:
    """The largest difference of a score from PyTorch's on ``count`` test images, and how many classes differ."""
    mean, std = (torch.tensor(json.loads(network.about[key])).view(3, 1, 1) for key in ("mean", "std"))
    images = (load("cifar10-mini", "test").images[:count].float() / 255 - mean) / std
    net = load_file(network.path, recheck.network(network.about["model"], 10)).eval()
    with torch.no_grad():
        wanted = torch.cat([net(part) for part in images.split(100)])
    found: list[Any] = []
    for first in range(0, count, 50):
        found += page.evaluate(SCORES, {"name": network.name, "first": first, "count": min(50, count - first)})
    scores = torch.tensor(found)
    return float((scores - wanted).abs().max()), int((scores.argmax(1) != wanted.argmax(1)).sum())


def frames(browser: Any, folder: Path, state: dict[str, Any], worker: bool) -> tuple[float, float]:
    """The longest frame in ms while a re-check runs, and the re-check's seconds, everything loaded before."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(600_000)
    if not worker:
        page.add_init_script("delete globalThis.Worker")
    page.goto((folder / "page.html").as_uri())
    page.wait_for_selector(".pa-recheck .pa-button")  # the figure starts after the page has loaded
    page.evaluate(FRAMES)  # loads, and warms
    longest, seconds = page.evaluate(FRAMES)
    page.close()
    return longest, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="test images whose scores are compared with PyTorch's")
    parser.add_argument("--repeats", type=int, default=15, help="runs of an image, of which the median counts")
    benchmarks.option(parser)
    options = parser.parse_args()
    report = benchmarks.Report(__file__)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("no Chromium on this machine; install one (apt install chromium)")
    networks, test = run_here.shipped(), load("cifar10-mini", "test")
    sparsest = max(networks, key=lambda network: (network.record["figures"].get("sparsity") or 0, network.method))
    with tempfile.TemporaryDirectory() as place, sync_playwright() as started:
        folder = Path(place)
        (folder / "_static/run-here").mkdir(parents=True)
        for name, content in run_here.scripts():
            (folder / "_static/run-here" / Path(name).name).write_bytes(content)
        state = run_here.run_state(title="Benchmark", methods=[sparsest.method])
        page_text = f'<!doctype html><html lang="en"><meta charset="utf-8">{RunHereWidget(state).static_html()}'
        (folder / "page.html").write_text(page_text, encoding="utf-8")
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        print(f"Chromium {browser.version}")
        page = browser.new_page()
        page.set_default_timeout(600_000)
        page.goto("about:blank")
        page.add_script_tag(content=module(*ENGINE, folder=HERE))
        images = text64(test.images.numpy().tobytes())
        for network in networks:
            steps = program(recheck.network(network.about["model"], 10))
            given = {"name": network.name, "file": text64(network.path.read_bytes()), "program": steps}
            work = page.evaluate(LOAD, given | {"images": images})
            sparse, dense = page.evaluate(TIME, {"name": network.name, "repeats": options.repeats})
            far, other = difference(page, network, options.images)
            print(
                f"{network.method:>6}: {work / 1e6:5.1f} M multiplications, {sparse:6.2f} ms an image, {dense:6.2f} ms "
                f"with its zeros ({dense / sparse:.1f} times); scores within {far:.1e} of PyTorch's, {other} classes "
                f"differ on {options.images:,} images"
            )
            goal = network is sparsest
            kind = f"ResNet-20, {network.method}, {network.path.stat().st_size / 1000:.0f} kB"
            report.ratio(f"{kind}: an image", sparse, at_most=12.0 if goal else None, unit="ms")
            report.ratio(f"{kind}: zeros multiplied over zeros skipped", dense / sparse, at_least=5.0 if goal else None)
            report.ratio(f"{kind}: largest difference of a score from PyTorch's", far, at_most=1e-3, unit="")
        page.close()
        for worker in (True, False):
            longest, seconds = frames(browser, folder, state, worker)
            how = "a worker" if worker else "slices between frames"
            print(f"re-check of {sparsest.method} with {how}: {seconds:.1f} s, longest frame {longest:.0f} ms")
            report.ratio(f"re-check on {len(test):,} images, {how}", seconds, at_most=15.0, unit="s")
            report.ratio(f"re-check, {how}: longest frame", longest, at_most=50.0, unit="ms")
        browser.close()
    report.write(options.json)


if __name__ == "__main__":
    main()

"""The built book and a browser to open it with; without a Chromium the tests are skipped, in CI they fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HANG = 300_000  # ms, for every wait: it only ends what hangs, on a machine however busy
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    if not CHROMIUM:
        message = "no Chromium on this machine: the browser tests need one (apt install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=HANG)
        chromium.new_page, chromium.new_context = patient(chromium.new_page), patient(chromium.new_context)
        yield chromium


def patient(opened):
    """``new_page`` or ``new_context`` whose pages wait for ``HANG``."""

    def open_one(**options):
        one = opened(**options)
        one.set_default_timeout(HANG)
        return one

    return open_one


@pytest.fixture(scope="session")
def site():
    """The folder of the built book. Built if it is stale, in a process of its own: notebooks bring an event loop
    along."""
    build = "from lab import book; book.build()"
    done = subprocess.run([sys.executable, "-c", build], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    from lab.book.pages import ROOT, workshop

    return Path(workshop(ROOT)) / "html"

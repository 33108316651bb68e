"""The book's figures: the same bytes each time, legible on light and dark pages, told apart by colour-blind readers."""

import itertools
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest

matplotlib.use("svg")
import matplotlib.pyplot as plt

from lab import figures

PAGES = ("#fffefb", "#14181a")
TOGETHER = (
    ("dense", "cs", "mp", "gmp"),
    ("sharing", "dense", "avagrad"),
    ("smol", "dense"),
    ("sgd", "adam", "avagrad"),
)
# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB
BLIND = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(colour):
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return linear(colour) @ [0.2126, 0.7152, 0.0722]


def lab(rgb):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.clip(to_xyz @ rgb / [0.9505, 1, 1.089], 1e-6, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def draw(points=200):
    with figures.style():
        fig, ax = plt.subplots()
        x = np.linspace(-3, 3, points)
        ax.plot(x, np.tanh(x), color=figures.CS, label="σ(βs)")
        ax.plot([0, 1], [0, 0.5], color=figures.MP, label="thesis", **figures.THESIS)
        ax.set(xlabel="s", title="A title")
        ax.legend()
    return fig


def test_palette_file_is_the_palette():
    file = Path(__file__).parents[1] / "book" / "static" / "palette.css"
    assert file.read_text() == figures.palette_css(), "run: python -m lab.figures > book/static/palette.css"


@pytest.mark.parametrize("role", figures.PALETTE)
def test_each_colour_stands_out_from_its_page(role):
    for colour, page in zip(figures.PALETTE[role], PAGES, strict=True):
        low, high = sorted((luminance(colour), luminance(page)))
        assert (high + 0.05) / (low + 0.05) >= 3


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("sight", BLIND)
def test_roles_that_meet_stay_apart(sight, theme):
    for group in TOGETHER:
        seen = {role: lab(np.clip(BLIND[sight] @ linear(figures.PALETTE[role][theme]), 0, 1)) for role in group}
        for one, other in itertools.combinations(group, 2):
            assert np.linalg.norm(seen[one] - seen[other]) > 15, (one, other)


def test_the_same_bytes_twice_and_light():
    first, second = figures.svg(draw(), "a curve"), figures.svg(draw(), "a curve")
    assert first == second
    assert len(first) < 150_000
    plt.close("all")


def test_svg_follows_the_page():
    text = figures.svg(draw(), 'less "<" more')
    assert 'aria-label="less &quot;&lt;&quot; more"' in text
    assert 'role="img"' in text
    assert "#000000" not in text
    assert "currentColor" in text
    assert f"var(--pa-cs,{figures.CS})" in text
    assert "<style" not in text  # it would reach the rest of the page
    assert "<metadata" not in text
    referred = set(re.findall(r"#([\w-]+)[\")]", text))
    assert set(re.findall(r' id="([^"]+)"', text)) <= referred
    plt.close("all")


def test_show_needs_words_and_states_the_profile(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    with pytest.raises(ValueError, match="alt"):
        figures.show(draw(), alt=" ")
    figures.show(draw(), alt="a curve", profile="quick")
    assert "profile <b>quick</b>" in shown[0]["text/html"]
    assert shown[0]["text/plain"] == "[figure] a curve (profile quick)"
    plt.close("all")

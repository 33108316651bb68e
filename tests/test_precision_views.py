"""What the precision map is fed with: read from records, checked, and refused with one line where it is not right."""

import base64
import zlib

import numpy as np
import pytest

from lab.figures.precision_map.state import precision_state
from lab.figures.precision_map.widget import PrecisionWidget
from lab.utils.errors import LabError
from principled.files.precision_map import encode_map

SHAPES = [(4, 3, 3, 3), (5, 4)]
MAPS = [np.arange(108).reshape(SHAPES[0]) % 5, np.full(SHAPES[1], 7)]


def record(lam=1e-5, accuracy=0.4, basins=True):
    bits = sum(int(p.sum()) for p in MAPS) / 128
    figures = {"accuracy": accuracy, "bits": bits - 1e5 * lam, "bits.conv": 1.98148, "bits.linear": 7.0}
    figures |= {f"{part}_bytes": 100.0 for part in ("file", "payload", "map", "rest")}
    weights = [{"layer": "conv", "index": 3, "bits": 2, "weight": 0.1, "loss": 1.0, "losses": [1.5, 1.1, 1.2]}]
    recording = {
        "layers": [{"name": "conv", "shape": list(SHAPES[0])}, {"name": "linear", "shape": list(SHAPES[1])}],
        "map": base64.b64encode(encode_map(MAPS)).decode(),
    }
    return {
        "id": f"{lam:g}", "seed": 0, "profile": "quick", "figures": figures,
        "config": {"method": {"name": "smol", "lambda": lam}},
        "recording": recording | ({"basins": weights} if basins else {}),
    }  # fmt: skip


def made(**change):
    return (
        precision_state(
            {"free": [record(1e-5), record(1e-6)]}, title="A title", dense=record(accuracy=0.5), pushes=(-1.0, 0.5, 1.0)
        )
        | change
    )


def test_networks_go_from_many_bits_to_few_and_keep_every_weight():
    state = made()
    networks = state["families"][0]["networks"]
    assert [n["lambda"] for n in networks] == [1e-6, 1e-5]
    unpacked = np.frombuffer(zlib.decompress(base64.b64decode(networks[0]["map"])), np.uint8)
    both = np.stack([unpacked >> 4, unpacked & 15], 1).ravel()  # two weights a byte
    assert (both == np.concatenate([p.ravel() for p in MAPS])).all()
    assert state["dense"] == 0.5
    assert state["basins"]["weights"][0]["losses"] == [1.5, 1.1, 1.2]


def test_without_basins_there_is_no_second_view():
    assert "basins" not in precision_state({"a": [record(basins=False)]}, title="t", dense=record())


def test_the_sentence_and_the_table_hold_the_numbers():
    figure = PrecisionWidget(made())
    assert "2 recorded networks" in figure.alt
    assert "50.0%" in figure.alt
    head, *rows = figure.table(figure.state)
    assert len(rows) == 2
    assert len(rows[0]) == len(head)
    assert "A title" in figure.static_html()


@pytest.mark.parametrize(
    ("families", "words"),
    [
        ({}, "needs at least one recorded run"),
        ({"a": [record() | {"recording": {}}]}, "holds no precision map"),
    ],
)
def test_records_that_give_no_map_are_refused(families, words):
    with pytest.raises(LabError, match=words):
        precision_state(families, title="t", dense=record())


def test_networks_of_other_layers_are_refused():
    other = record()
    other["recording"]["layers"][0]["name"] = "another"
    with pytest.raises(LabError, match="their layers differ"):
        precision_state({"a": [record(), other]}, title="t", dense=record())


@pytest.mark.parametrize("where", [{"family": 1}, {"position": 2}, {"layer": 2}])
def test_an_index_that_nothing_stands_at_is_refused(where):
    with pytest.raises(LabError, match=f"{next(iter(where))} {next(iter(where.values()))} is"):
        PrecisionWidget(made(), **where)

"""Chapter 4's speed: from a made-up record follow the crossing point and the table that it deserves."""

import json

import pytest

from lab.experiments.sparsity import speed_results
from lab.figures import measured


def ratio(name, value, unit="µs an image"):
    return {"name": name, "value": value, "unit": unit, "bound": None, "target": None}


@pytest.fixture
def case(monkeypatch, tmp_path):
    ratios = [
        ratio("net, batch 1: PyTorch", 400.0),
        ratio("net, batch 1: OpenVINO", 200.0),
        ratio("net, batch 1: OpenVINO int8", 90.0),
        ratio("net, batch 1: principled, 90% zeros", 50.0),
        ratio("net, batch 1: principled, 50% zeros", 250.0),
        ratio("net, batch 1: principled, 80% zeros", 100.0),
        ratio("net, batch 1, 80% zeros: the fastest dense float32 engine over principled", 2.0, "×"),
    ]
    machine = {"cpu": "a core", "threads": 1, "torch": "2", "cores": 1}
    command = "python benchmarks/runtime.py --seconds 2"
    result = {"ratios": ratios, "machine": machine, "date": "2026-01-02T00:00:00+00:00", "note": "", "command": command}
    (tmp_path / "runtime.json").write_text(json.dumps(result))
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    return speed_results.cases(result)["net, batch 1"]


def test_where_the_sparse_network_passes_the_fastest_dense_engine(case):
    assert speed_results.own(case) == [(0.5, 250.0), (0.8, 100.0), (0.9, 50.0)]
    assert set(speed_results.dense(case)) == {"PyTorch", "OpenVINO"}
    assert speed_results.crossing(case) == pytest.approx(0.6)  # a third of the way from 250 down to 100
    assert speed_results.crossing({**case, "OpenVINO": 40.0}) is None
    assert speed_results.crossing({**case, "OpenVINO": 300.0}) == 0.5


def test_the_table_and_the_figure(case, capsys):
    table = speed_results.speedups()
    assert list(table["zeros"]) == ["80%", "90%"]
    assert list(table["times faster"]) == ["2.0", "4.0"]
    assert list(table["than int8"]) == ["0.9", "1.8"]
    assert set(table["ahead from"]) == {"60% zeros"}
    speed_results.latency_against_zeros("net, batch 1")
    assert "measured on a core, 1 thread" in capsys.readouterr().out

"""Chapter 7's table of size and speed, from a made-up record."""

import json

from lab.experiments.combining import stack_speed
from lab.experiments.combining.stack import COMBINATIONS
from lab.figures import measured


def test_a_row_for_each_stack(monkeypatch, tmp_path, capsys):
    ratios = []
    for number, name in enumerate(COMBINATIONS, 1):
        values = {"file": 90 / number, "zeros": 10 * number, "time": 1200 / number}
        values["the fastest dense float32 engine over principled"] = number / 2
        ratios += [{"name": f"{name}: {what}", "value": value} for what, value in values.items()]
    machine = {"cpu": "a core", "threads": 1, "torch": "2"}
    result = {"ratios": ratios, "machine": machine, "date": "2026-01-02T00:00:00", "note": ""}
    (tmp_path / "stacks.json").write_text(json.dumps(result))
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    table = stack_speed.size_and_speed()
    assert table["stack"].iloc[0] == "dense"
    assert len(table) == len(COMBINATIONS)
    assert list(table.iloc[1])[1:] == ["45.0", "20.0 %", "600", "1.0"]
    assert "measured on a core" in capsys.readouterr().out

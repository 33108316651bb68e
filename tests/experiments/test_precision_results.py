"""Chapter 5's tables, figures and verdicts, on made-up records."""

import base64

import numpy as np
import pytest
from made_up_records import page as page
from made_up_records import record

from lab.experiments.precision import activations, further_results, results, scales, small_networks, structure, weights
from principled.files.precision_map import encode_map

LAYERS = {"first": (4, 3, 3, 3), "early": (4, 4, 3, 3), "middle": (4, 4, 3, 3), "late": (4, 4, 3, 3), "linear": (5, 4)}
MIDDLE = weights.headline("quick")


def smol(bits=(8, 4, 3, 2, 6), seed=0, accuracy=0.3, **options):
    maps = [np.full(shape, p) for p, shape in zip(bits, LAYERS.values(), strict=True)]
    figures = {f"bits.{name}": float(p) for name, p in zip(LAYERS, bits, strict=True)}
    figures |= {"payload_bytes": 4000.0, "map_bytes": 1000.0, "rest_bytes": 500.0, "file_bytes": 5500.0}
    figures |= {"accuracy_before_fixing": accuracy - 0.05, "accuracy_after_fixing": 0.1}
    figures |= {"accuracy": accuracy, "bits": float(np.mean(np.concatenate([p.ravel() for p in maps])))}
    layers = [{"name": name, "shape": list(shape)} for name, shape in LAYERS.items()]
    recording = {"layers": layers, "map": base64.b64encode(encode_map(maps)).decode()}
    return record(weights.run("quick", "smol", seed, **MIDDLE | options), recording=recording, **figures)


@pytest.fixture
def records():
    """The dense network, SMOL, SMOL* and BSQ over two seeds, and single runs of SMOL-L, blocks and LQ-Nets."""
    made = []
    for seed, shift in ((0, 0.0), (1, 0.002)):
        made.append(record(weights.run("quick", "dense", seed), accuracy=0.5 + shift, bits=32.0))
        made.append(smol(seed=seed, accuracy=0.4 + shift))
        made.append(smol((8, 1, 1, 0, 0), seed, 0.3 + shift, zero=True))
        made.append(record(weights.run("quick", "bsq", seed), accuracy=0.3 + shift, bits=5.0))
    made.append(smol((8, 2, 2, 4, 6), granularity="layer", accuracy=0.2))
    made.append(smol((8, 2, 2, 1, 6), granularity=16, zero="group", allowed=[0, 1, 2, 4, 8], accuracy=0.2))
    made.append(record(weights.run("quick", "lq-nets", bits=2), accuracy=0.45, bits=2.0))
    divided = weights.run("quick", "smol", search=1 / 8, **MIDDLE)  # another question: Figure 5.7
    made.append(smol(accuracy=0.9) | {"id": divided.id, "config": dict(divided.config)})
    made.append(record(weights.run("quick", "retrain", **MIDDLE, shuffled=True), accuracy=0.1, bits=2.0))
    return made


def test_a_row_a_method_and_setting_with_its_spread_and_the_accuracy_right_after_fixing(records, page):
    results.accuracy_and_size(records)
    rows = page.columns("method", "setting", "end of search", "right after fixing", "test accuracy", "packed file")
    assert rows[0] == ["dense", "–", "–", "–", "50.1% ± 0.1%", "–"]  # a record that lacks the two figures
    assert rows[1] == ["SMOL", "λ = 8e-06", "35.1%", "10.0%", "40.1% ± 0.1%", "5.5 kB"]
    assert [row[0] for row in rows] == ["dense", "SMOL", "SMOL*", "SMOL-L", "BSQ", "LQ-Nets", "blocks of 16"]


def test_what_fixing_and_fine_tuning_do_is_said_as_a_range(records, capsys):
    records.append(smol(accuracy=0.5, **{"lambda": 1.6e-5}))
    results.fixing(records)
    out = capsys.readouterr().out
    assert "SMOL: searched 35.1% to 45.0%, right after fixing 10.0% to 10.0%, fine-tuned 40.1% to 50.0%" in out
    assert "SMOL-L: searched 15.0% to 15.0%" in out


def test_the_pilot_stands_beside_its_full_search(page, capsys, monkeypatch):
    monkeypatch.setattr(results, "pilot_record", lambda: {"a": 2.5, f"a{results.STEP_OF_S}": 0.25})
    results.pilot()
    assert page.columns("search", "bits a weight", "mean step of s, of its rate") == [["a", "2.50", "25%"]]
    assert "all of CIFAR-10: 5.78 bits" in capsys.readouterr().out


def test_accuracy_against_bits_draws_the_means_beside_the_thesis(records, page):
    results.accuracy_against_bits(records)
    left, right = page.figures[0].axes
    lines = [line for line in left.lines if len(line.get_xdata()) and line.get_linestyle() == "-"]
    heights = {round(float(y), 3) for line in lines for y in line.get_ydata()}
    assert {40.1, 30.1, 20.0, 45.0} <= heights
    assert any(line.get_linestyle() == "--" for line in right.lines)


def test_a_verdict_needs_two_runs_on_either_side(records, page, capsys):
    results.verdicts(records)
    verdicts = {
        (row[0].split(" at")[0], row[1].split(" at")[0]): row[2] for row in page.columns("method", "against", "verdict")
    }
    assert verdicts["SMOL", "BSQ"] == "higher"
    assert verdicts["SMOL*", "BSQ"] == "not told apart"
    assert verdicts["SMOL*", "dense"] == "lower"
    assert verdicts["SMOL", "LQ-Nets"] == "no verdict"
    assert "highest mean at few bits: LQ-Nets at 2.00 bits, 45.0% (n = 1)" in capsys.readouterr().out


def test_the_precision_map_holds_the_first_seed_s_families(records):
    state = results.where_the_bits_went(records).state
    names = ["one a layer", "blocks of 16", "one a weight", "with zero precision"]
    assert [family["name"] for family in state["families"]] == names
    assert {n["seed"] for family in state["families"] for n in family["networks"]} == {0}
    assert state["dense"] == 0.5


def test_bits_of_each_layer_are_drawn_a_line_a_penalty(records, page):
    records.append(smol((8, 3, 3, 1, 6), **{"lambda": 1.6e-5}))
    results.bits_by_layer(records)
    by_layer, by_weight = page.figures[0].axes
    assert [line.get_ydata().tolist() for line in by_weight.lines] == [[8, 4, 3, 2, 6], [8, 3, 3, 1, 6]]
    assert len(by_layer.lines) == 1
    columns = page.columns("one precision", "penalty", "first layer", "early convolutions", "late convolutions")
    assert columns[1] == ["a weight", "λ = 8e-06", "8.00", "4.00", "2.00"]
    assert len(columns) == 3


def test_a_file_is_its_parts(records, page):
    results.file_sizes(records)
    rows = page.columns(
        "weights (kB)", "their map (kB)", "all else (kB)", "file (kB)", "bits a weight that the map adds"
    )
    assert len(rows) == 4
    assert rows[0] == ["4.0", "1.0", "0.5", "5.5", f"{8 * 1000 / 268_336:.2f}"]


def test_the_same_penalty_by_weight_and_by_layer(records, capsys):
    results.penalty_by_granularity(records)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "one precision a weight",
        "one precision a layer",
    ]


def test_energy_is_estimated_up_to_three_bits(records, page, capsys):
    results.energy_of_last_convolution(records, "late")
    results.energy_of_last_convolution(records, "first")
    absent, beyond = capsys.readouterr().out.split("λ")[1:]
    assert "100% of the weights absent" in absent
    assert "energy 0.0% of 2 bits" in absent
    assert "100% have more than 3 bits: outside of the estimate" in beyond


def test_retraining_is_judged_and_drawn(page, capsys):
    records = []
    for seed, shift in ((0, 0.0), (1, 0.002), (2, 0.004)):
        curve = {"accuracy": [0.1] * 5 + [0.2, None, 0.3]}
        records.append(record(structure.run("quick", "smol", seed), accuracy=0.4, bits=2.0))
        for shuffled, accuracy in ((False, 0.3), (True, 0.25)):
            run = structure.run("quick", "retrain", seed, shuffled=shuffled)
            records.append(record(run, curve, accuracy=accuracy + shift, bits=2.0))
    records.append(record(structure.run("quick", "smol", 0, 1), accuracy=0.5, bits=6.0))
    results.retraining(records)
    assert (
        "seed by seed, in points: +5.00 [+5.00, +5.00]: higher" in capsys.readouterr().out
    )  # the shift is each seed's
    results.retraining([r for r in records if r["seed"] == 0])
    assert "+5.00: no verdict" in capsys.readouterr().out
    results.search_and_retraining(records)
    left, right, bits = page.figures[0].axes
    assert left.lines[0].get_xydata().tolist() == [[1 / 8, 50.0], [5 / 8, 40.0]]
    assert bits.lines[0].get_ydata().tolist() == [6.0, 2.0]
    drawn = [line for line in right.lines if len(line.get_xdata())]
    assert [line.get_xydata().tolist() for line in drawn] == [[[1, 20.0], [3, 30.0]]] * 6


def test_small_networks_are_held_against_their_dense_form(records, page, capsys):
    small = [record(small_networks.run("quick", "dense"), accuracy=0.5, bits=32.0)]
    run = small_networks.run("quick", "smol", **{"lambda": 6e-5})
    small.append(record(run, accuracy=0.4, bits=2.0, file_bytes=2000.0))
    further_results.small_networks(small, records)
    assert page.columns("method", "setting", "against dense") == [
        ["dense", "–", "+0.0%"],
        ["SMOL", "λ = 6e-05", "-10.0%"],
    ]
    assert "-10.1% against dense" in capsys.readouterr().out  # the first seed's ResNet-20, over the mean of two


def test_activations_are_listed_by_bits_and_drawn_by_relu(page):
    numbers = {"bits.blocks.0.relu1": 3.0, "bits.blocks.0.relu2": 2.0, "bits.relu": 5.0}
    learned = activations.run("quick", "smol-a", **{"lambda": 1e-5})
    records = [
        record(activations.run("quick", "dense"), accuracy=0.5, bits=32.0),
        record(learned, accuracy=0.4, bits=3.0, **numbers),
        record(activations.run("quick", "pact", bits=2), accuracy=0.3, bits=2.0),
    ]
    further_results.activation_bits(records)
    assert page.columns("method", "bits are") == [["PACT", "set"], ["SMOL-A", "learned"], ["dense", "–"]]
    further_results.bits_by_relu(records)
    assert page.figures[0].axes[0].lines[0].get_ydata().tolist() == [5.0, 3.0, 2.0]


def test_ranges_stand_side_by_side(page):
    runs = [
        scales.run("quick", "dense"),
        *(scales.run("quick", "smol", scale=s, **{"lambda": 4e-6}) for s in scales.SCALES),
    ]
    further_results.ranges([record(run, accuracy=0.5, bits=2.0, file_bytes=1e3 + i) for i, run in enumerate(runs)])
    assert page.columns("range", "setting") == [["–", "–"], ["power of two", "λ = 4e-06"], ["±2", "λ = 4e-06"]]


def test_the_quantiser_is_drawn_at_four_precisions(page):
    results.quantiser_steps()
    levels = [len(set(ax.lines[1].get_ydata().tolist())) for ax in page.figures[0].axes]
    assert levels == [1, 2, 4, 8]


def test_each_weight_keeps_within_the_noise_that_it_bears(page):
    results.perturbation_limits()
    ax = page.figures[0].axes[0]
    best, nearest = (line.get_xydata()[0] for line in ax.lines if line.get_marker() in ("o", "s"))
    assert nearest.tolist() == [0.5, 0.375]  # levels of 2 and of 4 bits
    assert (((nearest - best) / [0.5, 0.125]) ** 2).sum() < 1

"""Every declared grid spans its range: by its pilot's record, by the recorded quick runs, or by the shares it is given.

Zeros go from 50 % on, bits from 1 to 5. A pilot of Continuous Sparsification is noisy and keeps about twice the weights
of the full run, where both are recorded: it has to reach 90 % of zeros where the thesis's tables end beyond 95.
"""

import importlib.util
import json
from collections import defaultdict

import pytest

from lab.experiments.precision import activations, small_networks, weights
from lab.experiments.sparsity import pruning, rivals, supermasks, tickets
from lab.experiments.sparsity.selection import points
from lab.runs.records import COME_ALONG
from lab.utils.files import ROOT


def script(name):
    """A pilot's script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pilots(monkeypatch):
    """A pilot's script, and what it recorded, by the names that it gave."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def read(name):
        file = ROOT / "data" / "benchmarks" / f"{name}.json"
        if not file.exists():
            pytest.skip(f"no pilot is recorded: python benchmarks/{name}.py --json data/benchmarks/{name}.json")
        rows = json.loads(file.read_text(encoding="utf-8"))["ratios"]
        return script(name), {row["name"]: row["value"] for row in rows}

    return read


def come_along(experiment):
    """The recorded quick runs, one for each that is declared."""
    lines = (COME_ALONG / f"{experiment.name}.jsonl").read_text(encoding="utf-8").splitlines()
    records = {record["id"]: record for record in map(json.loads, lines)}
    return [records[run.id] for run in experiment.runs("quick")]


def of_method(records, *options):
    """Records by network, method and these options of it."""
    groups = defaultdict(list)
    for record in records:
        method = record["config"]["method"]
        groups[record["config"]["model"], method["name"], *(method.get(o) for o in options)].append(record)
    return groups


# -- zeros -------------------------------------------------------------------------------------------------------------

HIGHEST = {"l0": 90, "str": 95, "cs": 90}
"""What a pilot has to reach; a gate of l0 is drawn 0 with a chance of 95 % at most."""


def test_every_grid_of_one_shot_pruning_spans_its_range_in_its_pilots_record(pilots):
    calibrate, zeros = pilots("calibrate_sparsity")
    grids = calibrate.grids()
    assert {grid.partition(",")[0] for grid in grids} == set(HIGHEST)
    left = []
    for grid, curve in grids.items():
        names = [calibrate.label(grid, run) for run in curve]
        left += [name for name in names if name not in zeros]
        shares = [zeros[name] for name in names if name in zeros]
        name, network, _ = grid.split(", ")
        lowest = 75 if network.startswith("resnet50") else 60  # Table 4.3 begins at 90
        assert 1 <= min(shares) <= lowest, grid  # not dense
        assert len(shares) < len(names) or max(shares) >= HIGHEST[name], grid
        assert shares == sorted(shares, reverse=name.startswith("cs")), grid
    if left:
        pytest.skip(
            f"record {left} with benchmarks/calibrate_sparsity.py --json data/benchmarks/calibrate_sparsity.json"
        )


def test_what_a_pilot_scales_does_not_move_its_zeros_much(pilots):
    calibrate, zeros = pilots("calibrate_sparsity")
    checks = [value for name, value in zeros.items() if name.startswith("check")]
    assert len(checks) == 3
    assert max(checks) - min(checks) < 5  # over four times the steps, at a quarter of the rate
    file = ROOT / "data" / "runs" / "pruning" / f"{calibrate.KNOWN.id}.json"
    full = json.loads(file.read_text(encoding="utf-8"))["figures"]["sparsity"]
    assert 1.5 < (100 - checks[0]) / (100 - 100 * full) < 2.5  # the pilot keeps about twice the weights


@pytest.mark.parametrize("profile", ["short", "paper"])
def test_every_grid_that_is_given_its_share_of_zeros_spans_its_range(profile):
    targets = defaultdict(list)
    for run in [*pruning.runs(profile, (0,)), *rivals.runs(profile, (0,)), *rivals.resnet50.runs(profile)]:
        method, network = run.config["method"], run.config["model"]
        if "target" in method:
            targets[network.partition("-")[0], method["name"]].append(method["target"])
    assert {name for _, name in targets} == {"mp", "gmp", "netslim", "amc", "dnw"}
    for (network, name), shares in targets.items():
        lowest, highest = {"resnet20": (0.5, 0.95), "vgg16": (0.5, 0.99), "resnet50": (0.9, 0.98)}[network]
        if name == "amc":  # Table 4.1: half of a ResNet-20's weights, 86 % of a VGG-16's, and no more
            highest = 0.9
        assert min(shares) <= lowest, (network, name)
        assert max(shares) >= highest, (network, name)


@pytest.mark.parametrize("grid", ["resnet20, short", "resnet20, paper", "conv6, short", "conv6, paper"])
def test_every_search_in_rounds_spans_its_range_in_its_pilots_record(pilots, grid):
    calibrate, zeros = pilots("calibrate_tickets")
    curve = calibrate.grids()[grid]
    lowest, highest = [], []
    for noise in {False, calibrate.adam(curve[0])}:  # under Adam a run lies between two pilots
        names = [
            [calibrate.label(grid, run, r, noise) for r in (1, run.config["method"]["rounds"])]
            for run in calibrate.tried(curve)
        ]
        if not all(name in zeros for pair in names for name in pair):
            pytest.skip(
                f"{grid}: record it with benchmarks/calibrate_tickets.py --json data/benchmarks/calibrate_tickets.json"
            )
        ends = [[zeros[name] for name in pair] for pair in names]
        assert ends == sorted(ends, reverse=True), grid  # the lower the start, the sparser
        lowest.append(min(map(min, ends)))
        highest.append(max(map(max, ends)))
    assert min(lowest) <= 60, grid
    assert min(highest) >= 95, grid


@pytest.mark.parametrize("profile", ["short", "paper"])
def test_searches_that_remove_a_share_a_round_span_their_range(profile):
    for network in ("resnet20", "vgg16", "conv6"):
        for run in tickets.searches(profile, network, (0,)):
            method = run.config["method"]
            if method["name"] in ("imp", "imp-c", "seq-cs"):
                kept = (1 - method["rate"]) ** method["rounds"]
                assert method["rate"] <= 0.5
                assert kept <= (0.2 if profile == "short" else 0.01), run.label()


def test_zeros_of_the_quick_runs_span_their_range():
    curves = of_method([*come_along(pruning.experiment), *come_along(rivals.experiment)])
    curves |= of_method([*come_along(tickets.experiment), *come_along(supermasks.experiment)])
    for (network, name), records in curves.items():
        good = [point.sparsity for record in records for point in points(record) if not point.fault]
        assert good or name in ("dense", "control"), (network, name)
        if name in ("l0", "str", "cs"):
            assert min(good) <= 0.75, (network, name)
            assert max(good) >= 0.9, (network, name)
        for record in records:
            method, figures = record["config"]["method"], record["figures"]
            if "target" in method:
                assert figures["sparsity"] == pytest.approx(method["target"], abs=0.01)
            if "rate" in method and "rate_linear" not in method:
                assert figures["sparsity"] == pytest.approx(1 - (1 - method["rate"]) ** method["rounds"], abs=0.01)


# -- bits --------------------------------------------------------------------------------------------------------------


def test_every_search_of_smol_at_short_ends_at_few_bits_in_its_pilots_record(pilots):
    search, bits = pilots("smol_search")
    ends = {point: bits[search.name(point)] for point in search.declared()}
    assert all(1 <= end <= 5 for end in ends.values())
    kinds = defaultdict(list)
    for (granularity, *_), end in ends.items():
        kinds[granularity].append(end)
    assert {"weight", "layer", 16} == set(kinds)
    assert min(kinds["weight"]) <= 2 < 2.5 <= max(kinds["weight"])  # Table 5.1: 2.1 to 2.8
    assert min(kinds["layer"]) <= 2.4 < 3.2 <= max(kinds["layer"])


def test_the_penalties_of_bsq_and_of_small_networks_end_at_few_bits_in_their_pilots_record(pilots):
    calibrate, bits = pilots("calibrate_bits")
    names = list(calibrate.declared())
    for network in small_networks.NETWORKS:
        ends = [bits[name] for name in names if network in name]
        assert ends == sorted(ends), network  # the largest penalty first
        assert 1 <= ends[0] <= 3 <= ends[-1], network  # Table 5.2: 1.5 to 3.4 bits
    assert 1 <= bits["BSQ, short"] <= 5
    for kind in ("SMOL-A, short", "SMOL, conv6, short, scale power"):
        ends = [bits[name] for name in names if name.startswith(kind)]
        assert ends == sorted(ends, reverse=True), kind  # the smallest penalty first
        assert 1 <= ends[-1] <= 2.5 < 4 <= ends[0], kind
    assert bits["check: BSQ, short, 93 steps"] > bits["check: BSQ, short, 310 steps"]


def test_bits_of_the_quick_runs_span_their_range():
    records = come_along(weights.experiment)
    bits = {key: [record["figures"]["bits"] for record in some] for key, some in of_method(records, "zero").items()}
    smol = bits["resnet20", "smol", False]
    assert min(smol) <= 1.1 < 4.9 <= max(smol)  # per weight, and per layer
    assert max(bits["resnet20", "smol", True]) < 2
    assert all(1 <= b <= 5 for b in bits["resnet20", "bsq", None])
    for experiment in (small_networks.experiment, activations.experiment):
        learned = [r for r in come_along(experiment) if r["config"]["method"]["name"].startswith("smol")]
        assert learned
        assert all(1 <= record["figures"]["bits"] <= 5 for record in learned)

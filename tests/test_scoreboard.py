"""The scoreboard's states are computed: from hand-made records follows exactly the verdict that they deserve."""

import html.parser
import re
from collections import Counter

import pytest

from lab import runs
from lab.book import scoreboard
from lab.datasets import thesis
from lab.experiments import claims
from lab.experiments.claims import Claim, Measured, verdict
from lab.experiments.sharing.shortest_paths import end_of_phase, first_phase
from lab.experiments.sparsity import pruning
from lab.runs import intervals
from lab.runs.registry import EXPERIMENTS
from lab.runs.source_hash import closure

PROVENANCE = {
    "source": "0", "commit": "0123456789abcdef", "dirty": True, "torch": "2.13", "cuda": None, "python": "3.11",
    "device": "a CPU", "precision": "float32", "threads": 1, "seconds": 600.0, "recorded": "2026-01-01T00:00:00+00:00",
}  # fmt: skip
CELL, ORDER = "Table 4.1: {}, ResNet-20", "Table 4.1: {} against {}, ResNet-20"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def every():
    return claims.every()


def record(name, accuracy, sparsity, profile="paper", seed=0, state="finished", device="a CPU", **options):
    run = pruning.run(profile, name, seed=seed, **options)
    figures = {"accuracy": accuracy, "sparsity": sparsity, "sparsity.conv": sparsity}
    result = {"figures": figures} if state == "finished" else {"error": "the loss became nan"}
    return runs.write(run, state, result, PROVENANCE | {"device": device})


def curve(name, profile, within):
    """All declared points of a method, seeds included: those up to sparsity ``within`` are as accurate as the dense."""
    made = []
    for run in pruning.runs(profile):
        method = run.config["method"]
        if method["name"] == name:
            options = {key: method[key] for key in ("s_init", "target") if key in method}
            repeated = method.get("s_init") == pruning.PROTOCOL[profile]["s_init"][1]
            share = method.get("target", 0.94 if repeated else 0.9) + run.seed / 1000
            made.append(record(name, 0.9 if share <= within else 0.8, share, profile, seed=run.seed, **options))
    return made


def whole(profile, mp=0.96, gmp=0.96, cs=1.0):
    dense = [record("dense", 0.91, 0.0, profile, seed=seed) for seed in (0, 1, 2)]
    return [*dense, *curve("mp", profile, mp), *curve("gmp", profile, gmp), *curve("cs", profile, cs)]


def rows_of(records):
    table = [claim for claim in claims.every() if claim.experiment == "pruning"]
    return {row.title: row for row in scoreboard.board(records, table) if row.claim}


# -- one rule ----------------------------------------------------------------------------------------------------------


def claim(**options):
    return Claim("pruning", lambda _: "", lambda _: [], **options)


NUMBER = {"table": "4.1", "row": "MP", "column": "ResNet-20", "tolerance": 1.0}  # 80
LARGER = {"table": "4.1", "row": "CS", "column": "ResNet-20", "versus": "GMP"}  # 94.4 against 86
BOUND = {"fact": "fold-40-8-8-error", "at_most": True}  # 0.3
GAIN = {"fact": "smol-vs-bsq-resnet20-accuracy", "tolerance": 0.3}  # 0.6


@pytest.mark.parametrize(
    ("options", "values", "baseline", "paper", "short"),
    [
        # 2 values 0.2 apart: half-width 12.7 * 0.1 = 1.27
        (NUMBER, (79.4, 79.6), (), "reproduced", "not run"),
        (NUMBER, (78.4, 78.6), (), "not told apart", "not run"),
        (NUMBER, (77.0, 77.2), (), "differs", "not run"),
        (NUMBER, (80.0,), (), "not run", "not run"),
        (LARGER, (94.0, 94.2, 94.1), (86.0, 86.2, 86.1), "reproduced", "same direction"),
        (LARGER, (86.0, 86.2, 86.1), (94.0, 94.2, 94.1), "differs", "opposite direction"),
        (LARGER, (94.0, 80.0), (86.0, 86.2), "not told apart", "not told apart"),
        (LARGER, (94.0,), (86.0, 86.2), "not run", "not run"),
        (LARGER, (94.0, 94.0), (94.0, 94.0), "not told apart", "not told apart"),
        (BOUND, (0.1, 0.11), (), "reproduced", "same direction"),
        (BOUND, (0.2, 0.3), (), "not told apart", "not told apart"),
        (BOUND, (0.6, 0.61), (), "differs", "opposite direction"),
        (GAIN, (92.5, 92.6, 92.55), (92.0, 92.1, 92.05), "reproduced", "same direction"),
        (GAIN, (93.5, 93.6, 93.55), (92.0, 92.1, 92.05), "differs", "same direction"),
        (GAIN, (92.0, 92.1, 92.05), (92.5, 92.6, 92.55), "differs", "opposite direction"),
    ],
)
def test_a_verdict_is_beyond_the_interval_and_none_rests_on_one_run(options, values, baseline, paper, short):
    measured = Measured(values, tuple("ab"), baseline)
    assert [verdict(claim(**options), measured, profile) for profile in ("paper", "short")] == [paper, short]


def test_the_interval_of_a_difference_is_welchs_by_hand():
    # means 2 and 5, variances 1 and 4, n = 3: t at 50/17 degrees of freedom is 3.2148, se^2 = 5/3
    low, high = Measured((1, 2, 3), ("a",) * 3, (3, 5, 7)).interval
    assert (low, high) == (pytest.approx(-3 - 3.2148 * (5 / 3) ** 0.5, abs=0.01), pytest.approx(1.15, abs=0.01))


# -- the board ---------------------------------------------------------------------------------------------------------


def test_every_statement_of_the_thesis_is_counted_once(every):
    rows = scoreboard.board([], every)
    numbers = sum(len(thesis.table(name)) for name in thesis.tables())
    facts = sum(fact.kind in scoreboard.MEASURED for fact in thesis.facts())
    assert sum(row.weight for row in rows) == numbers + facts + sum(claim.directional for claim in every)
    assert {row.state for row in rows} == {"counted", "not run"}
    assert all(row.why for row in rows if row.state == "not run")
    why = {row.why for row in rows if row.claim is None and row.chapter == 3}
    assert scoreboard.UNCOVERED not in why
    cells = {(n, r["row"], r["column"]) for n in thesis.tables() for r in thesis.table(n).to_dict("records")}
    assert set(claims.reasons()) <= cells | {f.id for f in thesis.facts()}


def test_no_row_but_a_counted_one_stands_without_a_run_and_each_judged_one_has_its_interval(every, monkeypatch):
    made = whole("paper")
    monkeypatch.delenv("LAB_RUNS")
    rows = scoreboard.board([*made, *runs.recorded()], every)
    judged = [row for row in rows if row.state not in ("counted", "not run")]
    assert len(judged) > 5
    for row in rows:
        if row.state == "counted":
            assert not row.claim.needs("paper")
            assert not row.measured.runs
        elif row.measured:
            assert row.measured.runs
    for row in judged:
        low, high = row.measured.interval
        assert low <= row.measured.value <= high
        assert row.measured.n >= 2
        of_state = {"reproduced": "paper", "differs": "paper", "same direction": "short", "opposite direction": "short"}
        assert row.profile == of_state.get(row.state, row.profile)
    records = {record["id"]: record for record in [*made, *runs.recorded()]}
    directions = [row for row in judged if row.state in scoreboard.REDUCED or row.claim.directional]
    assert len(directions) > 2
    for row in directions:  # the reader sees it too
        assert re.search(r"\[[-+]\S+, [-+]\S+\]", scoreboard._Shown(row, records).book)


@pytest.mark.parametrize("profile", ["paper", "short"])
def test_numbers_that_no_run_stands_behind_are_never_reproduced(profile):
    for options, values, baseline in ((NUMBER, (79.4, 79.6), ()), (LARGER, (94.0, 94.2), (86.0, 86.2))):
        assert verdict(claim(**options), Measured(values, ("a", "b"), baseline), profile) != "counted"
        assert verdict(claim(**options), Measured(values, (), baseline), profile) == "counted"


def test_how_fast_the_first_phase_is_learned_is_its_mean_f1():
    curve = {"phase": [1, 1, 1, 2], "f1": [0.2, None, 0.6, 1.0]}
    assert first_phase({"curve": curve, "figures": {}}) == pytest.approx(0.4)


def test_a_phase_s_end_is_one_number_on_the_page_and_on_the_board():
    curve = {"phase": [1, 1, 2, 2, 2], "f1": [0.2, 0.6, None, 0.5, 1.0]}
    jumping = {"curve": curve, "config": {"training": {}}, "figures": {"f1": 1.0}}
    steady = jumping | {"config": {"training": {"reestimate": 10}}}
    assert (end_of_phase(jumping), end_of_phase(steady)) == (0.75, 1.0)
    assert (end_of_phase(jumping, 1), end_of_phase(steady, 1)) == (pytest.approx(0.4), 0.6)


def test_states_of_table_4_1():
    rows = rows_of(whole("paper", mp=0.91))
    assert (rows[CELL.format("CS")].state, rows[CELL.format("CS")].measured.n) == ("reproduced", 3)  # 94.1 for 94.4
    assert rows[CELL.format("GMP")].state == "differs"  # 95.1 for 86
    assert rows[ORDER.format("CS", "GMP")].state == "differs"
    assert rows[CELL.format("MP")].state == "not run"  # 90: of the chosen setting one seed alone is declared
    assert rows[CELL.format("MP")].why.startswith("a single run on a side: no verdict")
    short = rows_of(whole("short"))
    assert short[ORDER.format("CS", "GMP")].state == "opposite direction"
    assert short[CELL.format("GMP")].state == "not run"
    assert short[CELL.format("GMP")].measured.value == pytest.approx(95.1)
    assert "a number of another schedule" in short[CELL.format("GMP")].why


def test_a_choice_has_no_verdict_before_all_of_its_runs_are_recorded():
    records = [r for r in whole("paper") if r["config"]["method"].get("target") != 0.98]
    row = rows_of(records)[ORDER.format("CS", "GMP")]
    assert (row.state, row.measured.n) == ("not run", 3)
    assert "not all are recorded" in row.why
    records += [record(name, 0, 0, state="diverged", target=0.98) for name in ("mp", "gmp")]  # tried, and no number
    assert rows_of(records)[ORDER.format("CS", "GMP")].state == "differs"


def test_what_is_missing_says_how_many_runs_of_how_many_epochs():
    why = rows_of([])[CELL.format("MP")].why
    assert why == "paper: 0 of 7 runs of 200 epochs; short: 0 of 6 runs of 15 epochs"
    few = rows_of([record("dense", 0.91, 0.0, "short")])[CELL.format("MP")]
    assert few.why.startswith("no run of mp is recorded; paper: 0 of 7 runs")
    quick = [record("dense", 0.4, 0.0, "quick"), record("mp", 0.4, 0.8, "quick", target=0.8)]
    assert rows_of(quick)[CELL.format("MP")].why == why


def test_a_dense_network_and_one_at_chance_are_no_points_of_a_curve():
    records = [record("dense", 0.91, 0.0), record("mp", 0.91, 0.0, target=0.5), record("mp", 0.1, 0.98, target=0.98)]
    row = rows_of(records)[CELL.format("MP")]
    assert row.measured is None
    assert "1 of 2: prunes nothing; 1 of 2: at chance" in row.why
    records.append(record("mp", 0.9, 0.8, target=0.8))
    assert rows_of(records)[CELL.format("MP")].measured.value == pytest.approx(80)


def test_a_network_at_chance_gives_no_number():
    from lab.experiments.optimizers import tables

    def measured(accuracy):
        made = []
        for run in tables.column("paper", "cifar10", "SGD"):
            made.append({"id": run.id, "profile": "paper", "config": run.config, "figures": {"accuracy": accuracy}})
        return claims.average("accuracy", lambda profile: tables.column(profile, "cifar10", "SGD"))(made)

    assert measured(0.9).n == 3
    assert measured(0.11) == "none of the 3 runs that it needs is recorded; 3 ended at chance"


# -- the claims --------------------------------------------------------------------------------------------------------


def test_every_claim_points_at_a_number_that_exists_and_at_runs_that_are_declared(every):
    declared = {}
    for claim in every:
        assert claim.said == claim.said
        assert claim.unit or claim.fact or claim.says  # a rate such as alpha is a bare number
        assert claim.chapter in scoreboard.CHAPTERS
        assert claim.directional or claim.at_most or (claim.tolerance > 0 and claim.reason)
        for profile in ("short", "paper"):
            key = claim.experiment, profile
            declared.setdefault(key, {run.id for run in runs.declaration(claim.experiment).runs(profile)})
            assert {run.id for run in claim.needs(profile)} <= declared[key]
    main = [claim for claim in every if claim.main]
    assert 25 <= len(main) <= 45
    assert {claim.chapter for claim in main} == set(scoreboard.CHAPTERS)


@pytest.mark.parametrize(
    ("fact", "refused"),
    [
        ("lsm-epoch-patterns", (10, 50)),  # the neighbouring epochs at which matrices are kept
        ("separable-best-alpha", (0.5, 5.0)),  # the neighbouring rates of the grid
        ("ch6-lm-best-epsilon", (5e-8,)),
        ("ch6-sgd-lr", (0.05, 0.2)),
        ("smol-bits-high-penalty", (2.5,)),
    ],
)
def test_the_next_value_that_is_tried_does_not_agree(every, fact, refused):
    (claim,) = [claim for claim in every if claim.fact == fact]
    assert claim.agrees(claim.said)
    assert not any(claim.agrees(value) for value in refused)


def test_a_tolerance_is_less_than_what_the_thesis_makes_of_it(every):
    """No effect is as large as the tolerance of the cells that show it: +-0.3 in Table 3.1 was."""
    cells = {(c.table, c.row, c.column): c for c in every if c.table and not c.versus}
    for claim in every:
        if claim.main and claim.versus and claim.table and (claim.table, claim.row, claim.column) in cells:
            assert cells[claim.table, claim.row, claim.column].tolerance < abs(claim.said), claim
        if claim.fact and "higher by" in thesis.fact(claim.fact).claim:
            assert not claim.agrees(0), claim.fact


def test_compression_at_full_precision_accuracy_looks_at_the_accuracy(every):
    (claim,) = [claim for claim in every if claim.fact == "smol-zpa-ratio-resnet20"]

    def measured(ours, dense):
        made = []
        for run in claim.needs("paper"):
            accuracy = (dense if run.config["method"]["name"] == "dense" else ours)[run.seed]
            figures = {"accuracy": accuracy, "bits": 1.6}
            made.append({"id": run.id, "profile": "paper", "config": run.config, "figures": figures})
        return claim.measure(made)

    as_good = measured((0.925, 0.926, 0.927), (0.924, 0.926, 0.928))
    assert as_good.values == (20.0, 20.0, 20.0)
    assert "not told apart" in as_good.note
    assert measured((0.90, 0.901, 0.902), (0.924, 0.926, 0.928)).startswith("compressed 20.0 times, accuracy less")


def test_one_template_gives_similarity_one_whatever_is_trained(every):
    (claim,) = [claim for claim in every if claim.fact == "k1-similarity"]
    assert claim.needs("paper") == []
    assert claim.measure([]).value == pytest.approx(1)


def test_claims_cannot_make_a_trained_result_stale(every):
    for experiment in {claim.experiment for claim in every}:
        assert not [file for file in closure(f"lab.experiments.{experiment}") if "claims" in file.as_posix()]


def test_the_thesis_s_files_are_read_once(every, monkeypatch):
    opened = Counter()
    read = thesis._read
    monkeypatch.setattr(thesis, "_read", lambda name, *rest: opened.update([name]) or read(name, *rest))
    thesis._table.cache_clear()
    thesis._facts.cache_clear()
    claims.every()
    scoreboard.board([], every)
    assert set(opened.values()) == {1}


# -- intervals of what the tests train again ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "values", "low", "high"),
    [
        ("accuracy", [0.4, 0.4], 0.36, 0.44),  # at least four hundredths to a side
        ("accuracy", [0.98, 0.99], 0.945, 1.0),
        ("fd", [40.0, 42.0], 35.343, 46.657),  # 4 * sqrt(2): no 1 bounds a distance
        ("bleu", [30.0, 30.0], 26.0, 34.0),
    ],
)
def test_an_interval_is_cut_to_what_the_score_can_be(score, values, low, high):
    assert intervals.interval(values, score) == {"low": low, "high": high, "seeds": 2}


def test_an_interval_that_would_check_nothing_is_not_stated():
    assert intervals.interval([0.4, 0.8], "f1") is None
    assert intervals.interval([1.0, 9.0], "fd") is None
    assert {runs.declaration(name).score for name in EXPERIMENTS} <= set(intervals.RANGES)


# -- the page ----------------------------------------------------------------------------------------------------------


class Balanced(html.parser.HTMLParser):
    """Collects tags and text; fails on an element that is closed out of turn."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], Counter(), ""

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags[tag] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def parsed(page):
    parser = Balanced()
    for block in re.findall(r"^````\{raw\} html\n(.*?)\n````$", page, re.S | re.M):
        parser.feed(block)
    assert parser.open == []
    return parser


def test_each_number_opens_its_runs(every):
    records = [*whole("short"), record("mp", 0.9, 0.8, "short", seed=1, target=0.8)]
    table = [claim for claim in every if claim.experiment == "pruning"]
    page = scoreboard.page(records, table)
    text = parsed(page).text
    chosen = [r["id"] for r in records if r["config"]["method"].get("target") == 0.95]
    gmp = [i for i in chosen if i in {r["id"] for r in records if r["config"]["method"]["name"] == "gmp"}]
    assert "95.1 [94.9, 95.3] %short, 15 epochs, n = 3" in text
    command = "python -m lab record --experiment pruning --profile short --device cpu"
    assert command + "".join(f" --run {i}" for i in sorted(gmp)) in text
    assert "a CPU, float32, torch 2.13, commit 0123456789 with uncommitted edits" in text
    assert scoreboard.page(reversed(records), table) == page
    judged = scoreboard.comparisons(scoreboard.board(records, table))
    assert judged > 0
    assert f"This page makes {judged} comparison" in page


def test_rows_without_a_measurement_are_folded_away_and_main_claims_come_first(every):
    page = scoreboard.page(whole("short"), every)
    first, chapter = page.index("## The main claims"), page.index("## Chapter 3")
    assert first < chapter
    for claim in every:
        if claim.main:
            assert scoreboard.safe(claim.main) in page[first:chapter]
    unfolded = re.sub(r'<details class="pa-fold">.*?</div></details></div>', "", page, flags=re.S)
    assert "counted, no run needed" in page
    assert len(unfolded) < len(page) / 2
    parser = parsed(page)
    assert parser.tags["script"] == 0


def test_nothing_in_a_record_becomes_markup(every):
    nasty = '<script>alert(1)</script>\n````\n# boo `x` & "y"'
    records = [record("dense", 0.91, 0.0, "short"), record("mp", 0.9, 0.8, "short", target=0.8, device=nasty)]
    page = scoreboard.page(records, [claim for claim in every if claim.experiment == "pruning"])
    assert "<script" not in page
    assert "# boo" not in re.sub(r"^````\{raw\} html\n.*?\n````$", "", page, flags=re.S | re.M)
    assert '<script>alert(1)</script> ```` # boo `x` & "y"' in parsed(page).text


def test_with_three_hundred_claims_of_three_seeds_the_page_leaves_room_for_what_it_loads(every):
    (gmp,) = [
        claim
        for claim in every
        if (claim.table, claim.row, claim.column, claim.versus) == ("4.1", "GMP", "ResNet-20", "")
    ]
    page = scoreboard.page(whole("short"), [gmp] * 300)
    assert page.count("n = 3") == 300
    assert len(page.encode()) < 900_000

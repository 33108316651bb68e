"""The scoreboard's states are computed: from hand-made records follows exactly the verdict that they deserve."""

import html.parser
import re
from collections import Counter

import pytest

from lab import runs
from lab.book import scoreboard
from lab.datasets import thesis
from lab.experiments import claims
from lab.experiments.claims import Claim, Measured
from lab.experiments.sparsity import pruning
from lab.runs.source_hash import closure

PROVENANCE = {
    "source": "0", "commit": "0123456789abcdef", "dirty": True, "torch": "2.13", "cuda": None, "python": "3.11",
    "device": "a CPU", "precision": "float32", "threads": 1, "seconds": 600.0, "recorded": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))


def record(name, accuracy, sparsity, profile="paper", seed=0, state="finished", device="a CPU", **options):
    run = pruning.run(profile, name, seed=seed, **options)
    figures = {"accuracy": accuracy, "sparsity": sparsity, "sparsity.conv": sparsity}
    result = {"figures": figures} if state == "finished" else {"error": "the loss became nan"}
    return runs.write(run, state, result, PROVENANCE | {"device": device})


def curve(name, profile, within):
    """A whole curve of one method: its points up to sparsity ``within`` keep the accuracy of the dense network."""
    made = []
    for run in pruning.runs(profile, seeds=(0,)):
        method = run.config["method"]
        if method["name"] == name:
            options = {key: method[key] for key in ("s_init", "target") if key in method}
            share = method.get("target", 0.944 - abs(method.get("s_init", 0)) / 100)
            made.append(record(name, 0.9 if share <= within else 0.8, share, profile, **options))
    return made


def whole(profile, mp=0.8, gmp=0.86, cs=1.0):
    return [
        record("dense", 0.91, 0.0, profile), *curve("mp", profile, mp), *curve("gmp", profile, gmp), *curve("cs", profile, cs),
    ]  # fmt: skip


def states(found):
    return {row.title: row for row in scoreboard.board(found) if row.claim}


CELL, ORDER = "Table 4.1: {}, ResNet-20", "Table 4.1: {} against {}, ResNet-20"


# -- the state ---------------------------------------------------------------------------------------------------------


def test_every_statement_of_the_thesis_is_counted_once():
    rows = scoreboard.board([])
    numbers = sum(len(thesis.table(name)) for name in thesis.tables())
    facts = sum(fact.kind in scoreboard.MEASURED for fact in thesis.facts())
    orders = sum(bool(claim.versus) for claim in claims.every())
    assert sum(row.weight for row in rows) == numbers + facts + orders
    untrained = [row for row in rows if row.claim is None or row.claim.needs("paper")]
    assert {row.state for row in untrained} == {"not run"}
    assert all(row.why for row in untrained)
    assert sum(scoreboard.summary(rows)[4].values()) == sum(row.weight for row in rows if row.chapter == 4)


def test_at_profile_paper_what_is_near_is_reproduced_and_what_is_not_differs():
    rows = states(whole("paper", gmp=0.95))
    assert {name: rows[CELL.format(name)].state for name in ("MP", "GMP", "CS")} == {
        "MP": "reproduced", "GMP": "differs", "CS": "reproduced",
    }  # fmt: skip
    assert rows[ORDER.format("CS", "MP")].state == "reproduced"
    assert rows[ORDER.format("GMP", "MP")].state == "reproduced"  # the direction, however large
    assert rows[ORDER.format("CS", "GMP")].state == "differs"  # 94.4 against 95
    assert rows["4.4.1: ResNet-20 in Table 4.1: weights that CS keeps fewer than GMP's"].state == "differs"


@pytest.mark.parametrize(
    ("off", "state"), [(2.0, "reproduced"), (-2.0, "reproduced"), (2.01, "differs"), (-2.01, "differs")]
)
def test_the_tolerance_is_a_limit(off, state):
    claim = Claim(
        "pruning", lambda _: Measured(80 + off, None, 1, ()), lambda _: [], "4.1", "MP", "ResNet-20", tolerance=2
    )
    assert scoreboard.judge(claim, []).state == state


@pytest.mark.parametrize(("value", "state"), [(-0.1, "reproduced"), (0.3, "reproduced"), (0.31, "differs")])
def test_less_than_is_one_sided(value, state):
    claim = Claim(
        "sharing", lambda _: Measured(value, None, 1, ()), lambda _: [], fact="fold-40-8-8-error", at_most=True
    )
    assert scoreboard.judge(claim, []).state == state
    assert "at most the thesis" in scoreboard.page([], [claim])


def test_what_is_counted_needs_no_run_and_what_is_declared_says_how_long_it_takes():
    count = Claim(
        "sharing",
        lambda _: Measured(36.5, None, 1, ()),
        lambda _: [],
        "3.1",
        "WRN 28-10 (dropout 0.0)",
        "Params (M)",
        tolerance=1,
    )
    assert "counted, no run" in parsed(scoreboard.page([], [count])).text
    row = states([])[CELL.format("MP")]
    assert (
        row.why
        == "0 of 7 runs recorded at profile paper; 0 of 5 runs recorded at profile short; declared for a GPU, 200 epochs a run"
    )


def test_a_claim_without_a_reduced_form_is_not_judged_by_short_runs():
    claim = Claim(
        "pruning",
        lambda _: "none",
        lambda profile: pruning.runs("paper")[:1] if profile == "paper" else [],
        "4.1",
        "MP",
        "ResNet-20",
        tolerance=1,
        reason="x",
    )
    assert scoreboard.judge(claim, whole("short")).state == "not run"


def test_what_has_no_claim_has_the_reason_that_the_declaration_gives():
    why = {row.title: row.why for row in scoreboard.board([]) if row.claim is None and row.chapter == 3}
    assert scoreboard.UNCOVERED not in why.values()
    assert set(claims.reasons()) <= {
        (n, r["row"], r["column"]) for n in thesis.tables() for r in thesis.table(n).to_dict("records")
    } | {f.id for f in thesis.facts()}


def test_at_profile_short_there_is_a_number_and_no_verdict():
    rows = states(whole("short"))
    row = rows[CELL.format("MP")]
    assert row.state == "short protocol only"
    assert row.measured.value == pytest.approx(80.0)
    assert row.why == "0 of 7 runs recorded at profile paper"


def test_an_unfinished_paper_recording_gives_no_verdict_and_an_unfinished_short_one_says_so():
    row = states([*whole("paper")[:5], *whole("short")])[CELL.format("MP")]
    assert row.state == "short protocol only"
    assert row.profile == "short"
    assert row.why.startswith("4 of 7") or row.why.startswith("5 of 7")
    some = [record("dense", 0.91, 0.0, "short"), record("mp", 0.9, 0.8, "short", target=0.8)]
    rows = states(some)
    assert rows[CELL.format("MP")].why.endswith("2 of 5 runs recorded at profile short")
    assert rows[CELL.format("GMP")].state == "not run"
    assert "no run of GMP is recorded" in rows[CELL.format("GMP")].why


def test_a_diverged_run_was_tried_and_counts_for_no_number():
    found = [r for r in whole("paper") if r["config"]["method"].get("target") != 0.98]
    assert states(found)[CELL.format("GMP")].state == "not run"
    found.append(record("gmp", 0, 0, state="diverged", target=0.98))
    assert states(found)[CELL.format("GMP")].state == "reproduced"


def test_a_complete_recording_without_any_accurate_point_differs_at_paper_and_never_at_short():
    assert states(whole("paper", gmp=0.0))[CELL.format("GMP")].state == "differs"
    row = states(whole("short", gmp=0.0))[CELL.format("GMP")]
    assert row.state == "short protocol only"
    assert "none of the 4 recorded points" in row.why


def test_quick_runs_say_nothing_here(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_BUILD", str(tmp_path))
    found = [record("dense", 0.4, 0.0, "quick"), record("mp", 0.4, 0.8, "quick", target=0.8)]
    rows = scoreboard.board(found)
    assert {row.state for row in rows if row.claim is None or row.claim.needs("paper")} == {"not run"}


def test_every_claim_points_at_a_number_that_exists_and_at_runs_that_are_declared():
    for claim in claims.every():
        assert claim.said == claim.said
        assert claim.unit or claim.fact  # a rate such as alpha is a bare number
        assert claim.chapter in scoreboard.CHAPTERS
        assert claim.versus or claim.at_most or (claim.tolerance > 0 and claim.reason)
        for profile in ("short", "paper"):
            declared = {run.id for run in runs.declaration(claim.experiment).runs(profile)}
            assert {run.id for run in claim.needs(profile)} <= declared


def test_claims_cannot_make_a_trained_result_stale():
    for experiment in {claim.experiment for claim in claims.every()}:
        assert not [file for file in closure(f"lab.experiments.{experiment}") if "claims" in file.as_posix()]


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


def test_each_number_opens_its_runs():
    found = [*whole("short"), record("mp", 0.9, 0.8, "short", seed=1, target=0.8)]
    page = scoreboard.page(found)
    text = parsed(page).text
    assert "80.0 ± 0.0 %short, 15 epochs, n = 2" in text
    mine = [r for r in found if r["config"]["method"] == {"name": "mp", "revision": 1, "target": 0.8}]
    command = "python -m lab record --experiment pruning --profile short --device cpu" + "".join(
        f" --run {r['id']}" for r in sorted(mine, key=lambda r: r["id"])
    )
    assert len(mine) == 2
    assert command in text
    for told in (
        "a CPU, float32, torch 2.13, commit 0123456789 with uncommitted edits",
        "method.target=0.8",
        "2026-01-01",
    ):
        assert told in text
    assert scoreboard.page(reversed(found)) == page


def test_the_page_holds_up_with_no_record_at_all():
    parser = parsed(scoreboard.page([]))
    assert parser.tags["details"] == sum(1 for _ in scoreboard.board([]))
    assert parser.tags["script"] == 0


def test_nothing_in_a_record_becomes_markup():
    nasty = '<script>alert(1)</script>\n````\n# boo `x` & "y"'
    page = scoreboard.page(
        [record("dense", 0.91, 0.0, "short"), record("mp", 0.9, 0.8, "short", target=0.8, device=nasty)]
    )
    assert "<script" not in page
    assert "# boo" not in re.sub(r"^````\{raw\} html\n.*?\n````$", "", page, flags=re.S | re.M)
    parser = parsed(page)
    assert parser.tags["script"] == 0
    assert '<script>alert(1)</script> ```` # boo `x` & "y"' in parser.text


def test_with_three_hundred_claims_of_five_seeds_the_page_leaves_room_for_what_it_loads():
    found = whole("short")
    found += [record("mp", 0.9, 0.8, "short", seed=s, target=0.8) for s in range(1, 5)]
    found += [record("dense", 0.91, 0.0, "short", seed=s) for s in range(1, 5)]
    mp = next(claim for claim in claims.every() if claim.row == "MP")
    assert "n = 5" in (one := scoreboard.page(found, [mp]))
    many = scoreboard.page(found, [mp] * 300)
    assert many.count("n = 5") == 300
    assert len(many.encode()) < 900_000, f"{len(many):,} bytes, {len(one):,} with one claim"

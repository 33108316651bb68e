"""The claims of Chapter 4's other experiments: from hand-made records follows the number that the rules of 4.3.4 give."""

import pytest

from lab import runs
from lab.book import scoreboard
from lab.datasets import thesis
from lab.experiments import claims
from lab.experiments.sparsity import claims_tickets as claimed
from lab.experiments.sparsity import rivals as methods
from lab.experiments.sparsity import supermasks, tickets

PROVENANCE = {
    "source": "0", "commit": "0123456789abcdef", "dirty": True, "torch": "2.13", "cuda": None, "python": "3.11",
    "device": "a CPU", "precision": "float32", "threads": 1, "seconds": 600.0, "recorded": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))


def written(run, **figures):
    return runs.write(
        run, "finished", {"figures": {k.replace("_round", ".round"): v for k, v in figures.items()}}, PROVENANCE
    )


def search(name, *rounds, seed=0, profile="paper", **options):
    """A recorded search: (accuracy, sparsity) of each round's ticket."""
    figures = {
        f"{what}_round{r}": pair[i]
        for r, pair in enumerate(rounds, 1)
        for i, what in enumerate(("accuracy", "sparsity"))
    }
    run = tickets.run(profile, name, seed, **options)
    return written(run, accuracy=rounds[-1][0], sparsity=rounds[-1][1], **figures)


def test_table_4_2_is_measured_by_the_rules():
    found = [
        written(tickets.run("paper", "dense", seed), accuracy=accuracy, sparsity=0.0)
        for seed, accuracy in ((0, 0.90), (1, 0.91))
    ]  # dense: 0.905
    found += [
        search("imp", (0.92, 0.2), (0.91, 0.36), (0.90, 0.49)),
        search("imp", (0.91, 0.2), (0.902, 0.36), (0.90, 0.49), seed=1),
    ]
    matching = claimed.chosen("resnet20", "imp", "sparsest matching", "weights remaining")(found)
    assert matching.value == pytest.approx(64.0)  # round 2 in the mean of both seeds: 0.906
    assert matching.n == 2
    assert set(matching.runs) == {found[2]["id"], found[3]["id"]}
    assert claimed.chosen("resnet20", "imp", "sparsest matching", "round")(found).value == 2
    best = claimed.chosen("resnet20", "imp", "best performing", "test accuracy")(found)
    assert best.value == pytest.approx(91.5)
    assert claimed.dense("resnet20")(found).value == pytest.approx(90.5)


def test_the_best_of_all_s_init_is_taken_for_cs():
    found = [written(tickets.run("paper", "dense"), accuracy=0.9, sparsity=0.0)]
    found += [search("cs", (0.93, 0.8), (0.92, 0.9), s_init=0.0), search("cs", (0.91, 0.95), (0.85, 0.97), s_init=-0.2)]
    kept = claimed.chosen("resnet20", "cs", "sparsest matching", "weights remaining")(found)
    assert kept.value == pytest.approx(5.0)
    best = claimed.chosen("resnet20", "cs", "best performing", "test accuracy")
    (above,) = [c for c in claimed.claims() if c.fact == "cs-above-dense"]
    assert best(found).value == pytest.approx(93.0)
    assert above.measure(found).value == pytest.approx(3.0)


def test_the_studies_do_not_count_as_searches_of_the_table():
    found = [written(tickets.run("paper", "dense"), accuracy=0.9, sparsity=0.0)]
    found += [search("imp", (0.95, 0.4), rate=0.4)]
    assert claimed.chosen("resnet20", "imp", "best performing", "round")(found) == "no search by imp is recorded"


def test_table_4_1_s_other_methods():
    found = [written(methods.run("paper", "dense"), accuracy=0.92, sparsity=0.0)]
    found += [
        written(methods.run("paper", "netslim", target=t), accuracy=a, sparsity=t)
        for t, a in ((0.8, 0.91), (0.9, 0.90), (0.95, 0.85))
    ]
    found += [written(methods.run("paper", "netslim", network="vgg16", target=0.99), accuracy=0.93, sparsity=0.99)]
    assert claimed.within("resnet20", "netslim")(found).value == pytest.approx(90.0)
    assert "no run of amc" in claimed.within("resnet20", "amc")(found)
    assert "dense network" in claimed.within("vgg16", "netslim")(found)


def test_a_supermask_must_be_sparse_enough():
    found = [
        written(supermasks.run("paper", "supermask", s_init=s), accuracy=a, sparsity=k)
        for s, a, k in ((0.1, 0.8, 0.6), (0.0, 0.74, 0.76), (-0.1, 0.7, 0.9))
    ]
    assert claimed.sparse_supermask(found).value == pytest.approx(74.0)
    assert claimed.sparse_supermask(found[:1]) == "none of the recorded supermasks keeps 25 % of the weights or less"


def test_every_cell_of_tables_4_1_and_4_2_has_a_claim_or_a_reason():
    have = {(c.table, c.row, c.column) for c in claims.every() if c.table} | set(claims.reasons())
    for table in ("4.1", "4.2", "4.3"):
        for cell in thesis.table(table).to_dict("records"):
            assert (table, cell["row"], cell["column"]) in have
    why = [row.why for row in scoreboard.board([]) if row.claim is None and row.chapter == 4]
    assert scoreboard.UNCOVERED not in why


def test_claims_point_at_declared_runs():
    for claim in claimed.claims():
        for profile in ("short", "paper"):
            declared = {run.id for run in runs.declaration(claim.experiment).runs(profile)}
            assert {run.id for run in claim.needs(profile)} <= declared
            assert claim.needs(profile)

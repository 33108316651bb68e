"""The chapter's table of methods: which point a row shows, and how CS is judged against its rivals."""

import pytest
from test_frontiers import record

from lab.experiments.sparsity import pruning, supermasks, tickets
from lab.experiments.sparsity import results as field
from lab.experiments.sparsity import rivals as methods


def pruned(name, seed=0, accuracy=0.4, sparsity=0.9, exact=None, **options):
    made = record(pruning.run("quick", name, seed, **options), accuracy, sparsity)
    if exact is not None:
        made["figures"]["exact"] = exact
    return made


def searched(name, rounds, network="resnet20", **options):
    made = record(tickets.run("quick", name, network=network, **options), rounds[-1][1], rounds[-1][0])
    for i, (sparsity, accuracy, exact) in enumerate(rounds, 1):
        made["figures"] |= {
            f"sparsity.round{i}": sparsity,
            f"accuracy.round{i}": accuracy,
            f"exact.round{i}": exact,
        }
    return made


def row(table, name):
    return table[table["method"] == name].iloc[0]


def test_every_method_of_the_experiments_has_a_row():
    made = [record(r) for m in (pruning, methods) for r in m.runs("quick")]
    made += [record(r) for n in ("resnet20", "conv6") for r in tickets.searches("quick", n)]
    made += [
        record(r) | {"figures": {"accuracy": 0.3, "sparsity": 0.6, "exact": 0.2, "accuracy_random": 0.1}}
        for r in supermasks.runs("quick")
    ]
    for r in made:
        for i in range(1, r["config"]["method"].get("rounds", 0) + 1):
            r["figures"] |= {f"accuracy.round{i}": 0.3, f"sparsity.round{i}": 0.5, f"exact.round{i}": 0.1}
    table = field.table(made)
    assert list(table["method"]) == [m.name for m in field.METHODS]
    known = {(r["experiment"], r["config"]["method"]["name"]) for r in made if r["config"]["method"]["name"] != "dense"}
    assert known == {(m.experiment, m.key) for m in field.METHODS}
    assert set(table["at short"]) == {""}


def test_a_row_shows_the_repeated_point_with_its_spread_and_both_sparsities():
    made = [pruned("dense", s, 0.5 + 0.02 * s, 0.0) for s in range(3)]
    made += [pruned("cs", s, 0.4 + 0.01 * s, 0.95, 0.25, s_init=-0.05) for s in range(3)]
    made += [pruned("cs", 0, 0.6, 0.5, 0.0, s_init=0.0)]  # better, but one seed
    short = [
        record(pruning.run("short", "cs", 0, s_init=-0.05), 0.866, 0.847),
        record(pruning.run("short", "dense"), 0.87, 0.0),
        record(pruning.run("paper", "cs", 0, s_init=-0.05), 0.99, 0.9),  # another profile
    ]
    found = row(field.table(made, short), "CS, Algorithm 1")
    assert found["accuracy"] == "41.0 ± 1.0%"
    assert found["dense"] == "52.0 ± 2.0%"
    assert (found["exact zeros"], found["hardened"], found["n"], found["epochs"]) == ("25.0%", "95.0%", 3, 9)
    assert found["at short"] == "86.6% at 84.7%; dense 87.0%"


def test_a_search_shows_its_sparsest_ticket_within_the_allowance_and_ss_the_first_round():
    made = [
        record(tickets.run("quick", "dense"), 0.4, 0.0),
        record(tickets.run("quick", "dense", network="conv6"), 0.3, 0),
    ]
    made += [searched("imp", [(0.2, 0.42, 0.2), (0.36, 0.39, 0.36), (0.49, 0.3, 0.49), (0.59, 0.3, 0.59)])]
    made += [searched("iss", [(0.3, 0.1, 0.3), (0.5, 0.31, 0.5), (0.7, 0.2, 0.7)], "conv6")]
    table = field.table(made)
    imp = row(table, "IMP, Algorithm 3")
    assert (imp["hardened"], imp["accuracy"], imp["epochs"]) == ("36.0%", "39.0%", 9)
    assert row(table, "ISS, Algorithm 4")["hardened"] == "50.0%"
    assert row(table, "SS")["hardened"] == "30.0%"


def test_the_contest_takes_no_point_of_cs_that_is_denser_and_states_the_noise():
    ours = [pruned("cs", s, 0.40 + 0.02 * s, 0.948, s_init=-0.05) for s in range(2)] + [
        pruned("cs", 0, 0.9, 0.5, s_init=0.0)
    ]
    rivals = [pruned("mp", s, 0.30 + 0.02 * s, 0.95, target=0.95) for s in range(2)]
    rivals += [
        pruned("mp", 0, 0.5, 0.8, target=0.8),
        pruned("mp", 0, 0.2, 0.99, target=0.99),
        pruned("mp", 0, 0.1, 0.7, target=0.7),
    ]
    dense, sparse, sparsest = field.contests(ours, rivals)
    assert (dense.word, dense.noise) == ("below", None)  # CS's 50 % point may not stand in for 80 %
    assert sparse.gap == pytest.approx(0.1)
    assert sparse.noise == pytest.approx(0.0141421, rel=1e-4)  # both standard deviations are 0.0141, n = 2
    assert (sparse.word, sparse.n_ours, sparse.n_rival) == ("above", 2, 2)
    assert (sparsest.word, sparsest.ours) == ("nothing so sparse", None)
    level = field.contests(ours, [pruned("gmp", s, 0.38 + 0.05 * s, 0.95, target=0.95) for s in range(2)])
    assert level[0].word == "level"


def test_layers_keep_the_networks_order():
    made = pruned("cs", 0, s_init=-0.05)
    made["figures"] |= {"sparsity.conv1": 0.1, "sparsity.blocks.0.conv1": 0.5, "sparsity.round1": 0.9}
    found = field.layer_table([made], ("cs", "mp"))
    assert list(found.columns) == ["cs"]
    assert found["cs"].to_dict() == {"conv1": 0.1, "blocks.0.conv1": 0.5}
    assert field.layer_table([made], ("cs",), least=0.95).empty

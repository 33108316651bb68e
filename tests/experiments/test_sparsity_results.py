"""Chapter 4's tables, figures, verdicts and claims, from records made by hand."""

import pytest
import torch
from records_by_hand import record

from lab import figures, runs
from lab.datasets import thesis
from lab.experiments.sparsity import (
    claims,
    curves,
    method_results,
    network_results,
    pruning,
    results,
    rivals,
    supermasks,
    ticket_results,
    tickets,
)


def pruned(name, seed=0, accuracy=0.4, sparsity=0.9, profile="quick", **options):
    return record(pruning.run(profile, name, seed, **options), accuracy, sparsity)


def searched(name, *rounds, seed=0, profile="quick", network="resnet20", **options):
    """A search's record: (accuracy, sparsity) of each round's ticket; of these zeros the arithmetic had made half."""
    made = record(tickets.run(profile, name, seed, network, **options), *rounds[-1])
    made["figures"]["epochs"] = 3.0 * len(rounds)
    for i, (accuracy, sparsity) in enumerate(rounds, 1):
        made["figures"] |= {
            f"accuracy.round{i}": accuracy,
            f"sparsity.round{i}": sparsity,
            f"exact.round{i}": sparsity / 2,
        }
    return made


def some():
    """Seeds of dense, CS and MP; one of GMP."""
    made = [pruned("dense", s, 0.50 + 0.02 * s, 0.0) for s in range(3)]
    made += [pruned("cs", s, 0.40 + 0.01 * s, 0.95, s_init=-0.05) for s in range(3)]
    made += [pruned("cs", 0, 0.6, 0.5, s_init=0.0)]
    made += [pruned("mp", s, 0.30 + 0.01 * s, 0.95, target=0.95) for s in range(3)]
    return [*made, pruned("mp", 0, 0.5, 0.8, target=0.8), pruned("gmp", 0, 0.35, 0.95, target=0.95)]


def layered(key, **options):
    made = pruned(key, **options)
    made["figures"] |= {"sparsity.conv1": 0.1, "sparsity.blocks.0.conv1": 0.5 if key == "cs" else 0.25}
    return made


@pytest.fixture
def page(monkeypatch):
    """What was drawn: (figure, text alternative, runs)."""
    drawn = []
    monkeypatch.setattr(figures, "show", lambda fig, *, alt, profile, runs: drawn.append((fig, alt, runs)))
    return drawn


def drawn(ax):
    """The lines of a panel: (all x, all y)."""
    return [tuple(tuple(round(float(v), 6) for v in values) for values in line.get_data()) for line in ax.lines]


def row(table, **cells):
    for column, value in cells.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_points_of_a_curve_have_their_setting_and_spread():
    table = results.one_shot(some())
    assert list(dict.fromkeys(table["method"])) == ["dense", "MP", "GMP", "CS"]
    cs = row(table, setting="s_init = -0.05")
    assert (cs["weights kept"], cs["test accuracy"], cs["runs"]) == ("5.0%", "41.0 ± 1.0%", 3)
    assert row(table, method="GMP")["setting"] == "sparsity = 95%"
    assert row(results.protocols(some()), network="ResNet-20")["runs"] == len(some())


def test_accuracy_against_zeros_draws_a_line_a_method_and_the_thesis_s_diamonds(page):
    results.accuracy_against_zeros(some())
    ((fig, alt, recorded),) = page
    measured, printed = fig.axes
    assert len(recorded) == len(some())
    assert ((50.0, 95.0), (60.0, 41.0)) in drawn(measured)
    assert ((80.0, 95.0), (50.0, 31.0)) in drawn(measured)
    stated = {x for line in printed.lines for x in line.get_xdata()}
    assert stated >= {thesis.value("4.1", name, "ResNet-20") for name in ("MP", "GMP", "CS")}
    assert "dotted" in alt


def test_points_are_matched_by_sparsity_and_the_verdict_is_welch_s():
    table = results.against_rivals(
        [*some(), pruned("mp", 0, 0.2, 0.99, target=0.99), pruned("mp", 0, 0.1, 0.7, target=0.7)]
    )
    assert list(table[table["rival"] == "MP"]["zeros"]) == ["80.0%", "95.0%", "99.0%"]  # below four fifths no contest
    denser, matched, sparser = (row(table, rival="MP", zeros=zeros) for zeros in ("80.0%", "95.0%", "99.0%"))
    assert denser["verdict"] == sparser["verdict"] == "no point of CS within a factor of 1.25"
    assert (matched["CS"], matched["seeds"]) == ("41.0 ± 1.0% at 95.0%", "3 and 3")
    assert matched["difference"] == "+10.0 [+7.7, +12.3]"  # 2.776 standard errors of 0.816 points
    assert matched["verdict"] == "CS higher"
    assert (row(table, rival="GMP")["seeds"], row(table, rival="GMP")["verdict"]) == ("1 and 3", "no verdict")
    assert len(results.against_rivals(some(), repeated=True)) == 1
    close = [pruned("gmp", s, 0.38 + 0.03 * s, 0.95, target=0.95) for s in range(3)]
    both = results.against_rivals([*(r for r in some() if r["config"]["method"]["name"] != "gmp"), *close])
    assert row(both, rival="GMP")["verdict"] == "not told apart"
    assert row(both, rival="MP", zeros="95.0%")["difference"] == "+10.0 [+7.1, +12.9]"  # wider: two comparisons
    iss = searched("iss", (0.3, 0.5), (0.3, 0.74), network="conv6")
    assert row(results.against_rivals([iss]), rival="ISS")["verdict"] == "reaches 74% of zeros"


def test_what_prunes_nothing_or_is_at_chance_is_no_point_of_a_curve():
    nothing = record(rivals.run("quick", "str", decay=1e-4), 0.4, 0.0)
    chance = record(rivals.run("quick", "str", decay=0.5), 0.11, 0.999)
    sound = record(rivals.run("quick", "str", decay=0.02), 0.35, 0.95)
    table = method_results.left_out([*some(), nothing, chance, sound])
    assert list(table["why it is no point"]) == ["prunes nothing", "at chance"]
    assert list(table["setting"]) == ["decay = 0.0001", "decay = 0.5"]
    assert row(method_results.every_method([*some(), nothing, chance, sound]), method="STR")["accuracy"] == "35.0%"
    assert row(method_results.every_method([*some(), nothing]), method="STR")["accuracy"] == "40.0%, prunes nothing"
    of_chance = [*some(), pruned("gmp", 0, 0.1, 0.99, target=0.99)]
    assert "99.0%" not in set(results.against_rivals(of_chance)["zeros"])
    made = [record(rivals.run("quick", "dense"), 0.4, 0.0), nothing]
    assert claims.within("resnet20", "str")(made) == "no run of STR is a point of its curve; 1 of 1: prunes nothing"


def test_the_sparsest_point_within_the_allowance_is_sought_in_each_profile():
    short = [pruned("dense", 0, 0.87, 0.0, "short"), pruned("cs", 0, 0.866, 0.847, "short", s_init=-0.05)]
    table = results.sparsest_by_profile([*some(), *short])
    assert row(table, profile="quick")["CS"] == "50.0% of zeros"
    assert row(table, profile="quick")["GMP"] == "none of 1 so accurate"
    assert row(table, profile="short")["CS"] == "84.7% of zeros"


def test_the_annealing_figure_has_the_dense_network_of_its_seed():
    made = [r | ({"recording": {"title": "t"}} if r["seed"] == 1 else {}) for r in some()]
    assert results.annealing(made) == {"title": "t", "dense": {"accuracy": 0.52}}


SEARCHED = [
    record(tickets.run("quick", "dense"), 0.4, 0.0),
    record(tickets.run("quick", "dense", network="conv6"), 0.3, 0.0),
    searched("control", (0.41, 0.0)),
    searched("control", (0.3, 0.0), network="conv6"),
    searched("imp", (0.42, 0.2), (0.405, 0.36), (0.30, 0.49), (0.30, 0.59)),
    searched("iss", (0.1, 0.3), (0.31, 0.5), (0.2, 0.7), network="conv6"),
]


def test_searches_are_judged_by_both_rules_and_priced():
    imp = row(ticket_results.searches(SEARCHED), search="IMP")  # round 2 is above dense, and below the control
    assert imp["sparsest matching"] == imp["best performing"] == "20.0% zeros, 42.0% (round 1)"
    assert (
        row(ticket_results.searches(SEARCHED), search="dense, re-trained", network="ResNet-8")["best performing"]
        == "41.0%"
    )
    assert imp["epochs"] == "12, or 12 side by side"
    assert row(ticket_results.searches(SEARCHED), search="ISS")["sparsest matching"] == "50.0% zeros, 31.0% (round 2)"


def test_tickets_against_zeros_draws_a_panel_a_network(page):
    ticket_results.tickets_against_zeros(SEARCHED)
    fig = page[0][0]
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["ResNet-8", "Conv-6, quarter width"]
    assert ((20.0, 36.0, 49.0, 59.0), (42.0, 40.5, 30.0, 30.0)) in drawn(fig.axes[0])
    assert ((0.0, 1.0), (41.0, 41.0)) in drawn(fig.axes[0])
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["dense, re-trained", "IMP", "ISS"]


def test_imp_s_rates_are_a_line_each(page):
    faster = searched("imp", (0.38, 0.4), (0.36, 0.64), rate=0.4)
    ticket_results.rates_of_imp([r for r in [*SEARCHED, faster] if r["config"]["model"] == "resnet8"])
    (ax,) = page[0][0].axes
    assert ((40.0, 64.0), (38.0, 36.0)) in drawn(ax)
    assert ((20.0, 36.0, 49.0, 59.0), (42.0, 40.5, 30.0, 30.0)) in drawn(ax)


def test_a_study_states_how_far_its_values_differ():
    runs_of = [tickets.run("quick", "cs", s_init=0.05, rounds=1, **{"lambda": lam}) for lam in (1e-8, 0.0)]
    made = [record(r) for r in runs_of]
    for r, accuracy, zeros in zip(made, (0.35, 0.36), (0.5, 0.25), strict=True):
        r["figures"] |= {"accuracy.round1": accuracy, "sparsity.round1": zeros}
    table = ticket_results.study(made, "lambda")
    assert list(table["lambda"]) == ["0.0", "1e-08"]
    assert list(table["zeros"]) == [25.0, 50.0]
    assert list(table["range of zeros"]) == [25.0, 25.0]
    assert list(table["accuracy"]) == [36.0, 35.0]
    assert list(table["range of accuracy"]) == [1.0, 1.0]


def test_the_supermasks_nearest_to_half_empty_are_drawn_over_the_epochs(page):
    made = [record(r) for r in supermasks.runs("quick")]
    for i, r in enumerate(made):
        r["figures"]["sparsity"] = (0.84, 0.65, 0.41, 0.5, 0.73)[i]
        r["curve"] = {"epoch": [1, 2, 3], "accuracy": [0.1, None, 0.2 + 0.01 * i]}
    method_results.supermask_curves(made)
    fig, _, shown = page[0]
    assert [r["id"] for r in shown] == [made[2]["id"], made[3]["id"]]
    assert ((1.0, 3.0), (10.0, 22.0)) in drawn(fig.axes[0])
    assert ((1.0, 3.0), (10.0, 23.0)) in drawn(fig.axes[0])


def test_procedures_state_the_settings_of_the_runs():
    made = [record(pruning.run("paper", "gmp", target=0.9)), record(rivals.run("quick", "amc", target=0.8))]
    table = method_results.procedures(made)
    assert list(table["method"]) == ["GMP", "AMC"]
    assert "after 144 of 160 epochs" in row(table, method="GMP")["here"]
    assert "24 episodes, 8 of them random, scored on 100 training images" in row(table, method="AMC")["here"]
    known = {r.key for r in method_results.ROWS if r.experiment in ("pruning", "methods")} - {"cs", "cs-filters"}
    assert set(method_results.PROCEDURES) == known


def test_every_method_of_the_experiments_has_a_row():
    made = [record(r) for m in (pruning, rivals) for r in m.runs("quick")]
    made += [record(r) for n in ("resnet20", "conv6") for r in tickets.searches("quick", n)]
    made += [record(r) for r in supermasks.runs("quick")]
    for r in made:
        r["figures"]["accuracy_random"] = 0.1
        for i in range(1, r["config"]["method"].get("rounds", 0) + 1):
            r["figures"] |= {f"accuracy.round{i}": 0.3, f"sparsity.round{i}": 0.5, f"exact.round{i}": 0.1}
    table = method_results.every_method(made)
    assert list(table["method"]) == [r.name for r in method_results.ROWS]
    known = {(r["experiment"], r["config"]["method"]["name"]) for r in made} - {
        (experiment, key) for experiment in ("pruning", "methods", "tickets") for key in curves.DENSE
    }
    assert known == {(r.experiment, r.key) for r in method_results.ROWS}
    assert row(table, method="supermask, CS")["dense"] == "untrained 10.0%"
    assert method_results.every_method([]).empty


def test_a_row_shows_the_repeated_point_of_a_method_and_the_right_round_of_a_search():
    table = method_results.every_method([*some(), *SEARCHED])
    cs = row(table, method="CS, Algorithm 1")  # s_init = 0 is better, but has one seed
    assert (cs["hardened"], cs["accuracy"], cs["n"], cs["epochs"], cs["dense"]) == (
        "95.0%", "41.0 ± 1.0%", 3, 9, "52.0 ± 2.0%",
    )  # fmt: skip
    imp = row(table, method="IMP, Algorithm 3")
    assert (imp["hardened"], imp["exact zeros"], imp["accuracy"], imp["epochs"]) == ("36.0%", "18.0%", "40.5%", 9)
    assert row(table, method="ISS, Algorithm 4")["hardened"] == "50.0%"
    assert row(table, method="SS")["hardened"] == "30.0%"


def test_layers_keep_the_networks_order(page):
    made = [
        layered("cs", s_init=-0.05),
        layered("mp", target=0.9),
        layered("gmp", target=0.9),
        layered("mp", target=0.5, sparsity=0.5),
    ]
    kept = network_results.kept_by_layer(made, ("cs", "mp", "dnw"))
    assert list(kept.columns) == ["CS", "MP"]
    assert kept["CS"].to_dict() == pytest.approx({"conv1": 90.0, "blocks.0.conv1": 50.0})
    assert network_results.kept_by_layer(made, ("cs",), least=0.95).empty
    assert row(network_results.first_stage(made), rival="MP")["keeps"] == "1.5 times"
    made.append(record(rivals.run("quick", "dnw", target=0.9)) | {"figures": made[0]["figures"]})
    network_results.where_the_zeros_lie(made)
    strict, loose = page[0][0].axes
    assert [len(ax.get_legend().get_texts()) for ax in (strict, loose)] == [3, 1]


def test_forms_of_a_network_are_compared_with_the_first():
    dense, sparse = (torch.nn.Linear(400, 64, bias=False) for _ in range(2))
    with torch.no_grad():
        sparse.weight[4:] = 0
    table = network_results.forms({"dense": dense, "sparse": sparse})
    plain = float(row(table, form="dense")["plain, kB"])
    assert plain == pytest.approx(4 * 400 * 64 / 1000, abs=1)
    assert 0.7 * plain < float(row(table, form="dense")["saved, kB"]) <= plain  # exponents of drawn weights compress
    assert row(table, form="sparse")["not 0"] == "6.2%"
    assert float(row(table, form="sparse")["saved, kB"]) < 10


# -- claims ------------------------------------------------------------------------------------------------------------


def paper(module, name, accuracy, sparsity, seed=0, **options):
    return record(module.run("paper", name, seed, **options), accuracy, sparsity)


def test_table_4_1_is_measured_by_its_rule():
    made = [paper(rivals, "dense", 0.92, 0.0)]
    made += [paper(rivals, "netslim", a, t, target=t) for t, a in ((0.8, 0.91), (0.9, 0.90), (0.95, 0.85))]
    made += [paper(rivals, "netslim", 0.93, 0.99, network="vgg16", target=0.99)]
    assert claims.within("resnet20", "netslim")(made).value == pytest.approx(90.0)
    assert "no run of amc" in claims.within("resnet20", "amc")(made)
    assert "dense network" in claims.within("vgg16", "netslim")(made)
    assert "none of the 1 recorded points of gmp" in claims.within("resnet20", "gmp")(some())
    seeds = claims.within("resnet20", "mp")([*some(), pruned("mp", 1, 0.52, 0.81, target=0.8)])
    assert (seeds.value, seeds.spread, seeds.n) == (pytest.approx(80.5), pytest.approx(1 / 2**0.5), 2)
    pair = [
        paper(pruning, "dense", 0.9, 0.0),
        paper(pruning, "cs", 0.9, 0.95, s_init=0.0),
        paper(pruning, "gmp", 0.9, 0.9, target=0.9),
    ]
    assert claims.fewer_kept(pair).value == pytest.approx(50.0)


def test_table_4_2_is_measured_by_its_rules():
    made = [paper(tickets, "control", accuracy, 0.0, seed) for seed, accuracy in ((0, 0.90), (1, 0.91))]  # 0.905
    made += [
        searched("imp", (0.92, 0.2), (0.91, 0.36), (0.90, 0.49), profile="paper"),
        searched("imp", (0.91, 0.2), (0.902, 0.36), (0.90, 0.49), profile="paper", seed=1),
    ]
    matching = claims.chosen("resnet20", "imp", "sparsest matching", "weights remaining")(made)
    assert (matching.value, matching.n) == (pytest.approx(64.0), 2)  # round 2 in the mean of both seeds: 0.906
    assert set(matching.runs) == {made[2]["id"], made[3]["id"]}
    assert claims.chosen("resnet20", "imp", "sparsest matching", "round")(made).value == 2
    assert claims.chosen("resnet20", "imp", "best performing", "test accuracy")(made).value == pytest.approx(91.5)
    assert claims.dense("resnet20", "control")(made).value == pytest.approx(90.5)
    assert claims.dense("resnet20")(made) == "the dense network (dense) is not recorded"


def test_of_all_s_init_the_best_is_taken_and_the_studies_do_not_count():
    made = [paper(tickets, "control", 0.9, 0.0)]
    made += [searched("cs", *pairs, profile="paper", s_init=s) for s, pairs in (
        (0.0, ((0.93, 0.8), (0.92, 0.9))), (-0.2, ((0.91, 0.95), (0.85, 0.97))),
    )]  # fmt: skip
    kept = claims.chosen("resnet20", "cs", "sparsest matching", "weights remaining")(made)
    assert kept.value == pytest.approx(5.0)
    (above,) = [c for c in claims.claims() if c.fact == "cs-above-dense"]
    assert above.measure(made).value == pytest.approx(3.0)
    made.append(searched("imp", (0.95, 0.4), profile="paper", rate=0.4))
    assert claims.chosen("resnet20", "imp", "best performing", "round")(made) == "no search by imp is recorded"


def test_a_supermask_must_be_sparse_enough():
    made = [
        paper(supermasks, "supermask", a, k, s_init=s)
        for s, a, k in ((0.1, 0.8, 0.6), (0.0, 0.74, 0.76), (-0.1, 0.7, 0.9))
    ]
    assert claims.sparse_supermask(made).value == pytest.approx(74.0)
    assert claims.sparse_supermask(made[:1]) == "none of the recorded supermasks keeps 25 % of the weights or less"


def test_every_cell_of_tables_4_1_to_4_3_has_a_claim_or_a_reason():
    have = {(c.table, c.row, c.column) for c in claims.claims()} | set(claims.reasons())
    for table in ("4.1", "4.2", "4.3"):
        assert {(table, cell["row"], cell["column"]) for cell in thesis.table(table).to_dict("records")} <= have


def test_claims_point_at_declared_runs():
    for claim in claims.claims():
        for profile in ("short", "paper"):
            declared = {run.id for run in runs.declaration(claim.experiment).runs(profile)}
            assert {run.id for run in claim.needs(profile)} <= declared
            assert claim.needs(profile)

"""Tables 6.1 and 6.2: what is declared, that a run takes the settings of its search, that a stop leaves no trace; their
claims."""

import dataclasses
import re
from functools import partial

import pytest
import torch
from tiny_run import made_up

from lab import runs
from lab.baselines.optimizers import TABLE, build
from lab.book import scoreboard
from lab.datasets import thesis
from lab.datasets.text import Text
from lab.experiments import base
from lab.experiments import first as _first
from lab.experiments.optimizers import claims, grids
from lab.experiments.optimizers import tables as optimizers
from lab.models import registry
from lab.models.lstm import CharLSTM
from lab.models.small_cnn import SmallCNN
from lab.runs import runner
from lab.training import rate
from lab.utils.errors import LabError

CPU = torch.device("cpu")


def short_text(name):
    letters = torch.randint(0, 77, (700,), generator=torch.Generator().manual_seed(0))
    return Text(letters[:500], letters[500:600], letters[600:], "".join(map(chr, range(77))), name, "00")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Made-up data, small networks, two trials a search, an empty folder of results."""
    for module in (base, grids):
        monkeypatch.setattr(module, "load", made_up)
    monkeypatch.setattr(grids, "load_text", short_text)
    monkeypatch.setitem(registry.NETWORKS, "small CNN", partial(SmallCNN, 4))
    lstm = partial(CharLSTM, units=6, embedding=6, layers=1, dropout=(0, 0, 0, 0))
    monkeypatch.setitem(registry.NETWORKS, "LSTM(48)", lstm)
    for part, sizes in (("images", {"batch_size": 16}), ("text", {"batch_size": 4, "bptt": 16})):
        training = optimizers.SEARCH["quick"][part]["training"] | sizes | {"epochs": 2}
        monkeypatch.setitem(optimizers.SEARCH["quick"][part], "training", training)
        monkeypatch.setitem(
            optimizers.PROTOCOL["quick"]["cifar10" if part == "images" else "text"], "training", training
        )
    monkeypatch.setitem(optimizers.SEARCH["quick"]["images"], "validation", 32)
    monkeypatch.setenv("LAB_BUILD", str(tmp_path))


def compute(run, path, stop=lambda: False):
    return optimizers.experiment.compute(run, CPU, path, lambda epoch: None, stop)


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
def test_every_run_is_declared_once_and_every_search_before_the_runs_that_rest_on_it(profile):
    declared = optimizers.runs(profile)
    place = {run.id: i for i, run in enumerate(declared)}
    assert len(place) == len(declared)
    for run in declared:
        if run.config["method"]["stage"] == "test":
            search = optimizers.search_of(run)
            assert search.experiment == "grids" or place[search.id] < place[run.id]
            assert search.config["method"]["name"] == run.config["method"]["name"]
    assert {run.config["method"]["name"] for run in declared} == set(TABLE)
    for run in declared:
        tried = len(run.config["method"].get("trials", [None]))  # the progress bar counts a search's trials together
        assert optimizers.experiment.epochs(run) == tried * run.config["training"]["epochs"]


def test_at_profile_paper_the_protocol_is_the_thesis_s():
    fact = {f.id: f.value for f in thesis.facts(6)}
    sets = optimizers.PROTOCOL["paper"]
    for task in ("cifar10", "cifar100"):
        training = sets[task]["training"]
        assert (training["epochs"], training["batch_size"]) == (fact["ch6-cifar-epochs"], fact["ch6-cifar-batch"])
        assert training["weight_decay"] == fact["ch6-cifar-weight-decay"]
        assert tuple(s * 200 for s in training["steps"]) == pytest.approx(fact["ch6-cifar-decay-epochs"])
        assert training["factor"] == pytest.approx(1 / fact["ch6-cifar-decay-factor"])
    training = sets["imagenet"]["training"]
    assert (training["epochs"], training["batch_size"]) == (fact["ch6-imagenet-epochs"], fact["ch6-imagenet-batch"])
    assert tuple(s * 100 for s in training["steps"]) == pytest.approx(fact["ch6-imagenet-decay-epochs"])
    assert training["weight_decay"] == fact["ch6-imagenet-weight-decay"]
    for task, units in (("text", fact["lstm-units"]), ("wide text", fact["ch6-lm-wide"])):
        training = sets[task]["training"]
        assert sets[task]["model"] == f"3xLSTM({units:.0f})"
        assert (training["epochs"], training["batch_size"]) == (fact["ch6-lm-epochs"], fact["ch6-lm-batch"])
        assert (training["bptt"], training["weight_decay"]) == (fact["ch6-lm-bptt"], fact["ch6-lm-weight-decay"])
        assert tuple(s * 500 for s in training["steps"]) == pytest.approx(fact["ch6-lm-decay-epochs"])
    assert len(optimizers.search("paper", "images", "SGD").config["method"]["trials"]) == 21
    assert optimizers.search("paper", "images", "AMSGrad") == grids.run("paper", "AMSGrad")


@pytest.mark.parametrize(("profile", "part"), [(p, part) for p in ("quick", "short") for part in ("images", "text")])
def test_reduced_searches_give_every_method_as_many_trials(profile, part):
    counts = {name: len(optimizers.trials(profile, part, name)) for name in TABLE}
    assert len(set(counts.values())) == 1, counts
    assert all((eps is None) == (name == "SGD") for name in TABLE for _, eps in optimizers.trials(profile, part, name))


@pytest.mark.parametrize(("task", "name"), [("cifar10", "Adam"), ("cifar10", "SGD"), ("text", "AvaGrad")])
def test_a_run_computes_its_search_first_and_trains_with_what_that_found(task, name, tmp_path):
    run = optimizers.run("quick", task, name)
    search = optimizers.search_of(run)
    assert runs.find(search) is None
    got = compute(run, tmp_path / "c.pt")
    of_search = runs.find(search)
    alpha, eps = optimizers.settings(of_search)
    assert (got["recording"]["alpha"], got["recording"]["epsilon"]) == (alpha, eps)
    scores = [score for _, _, score in of_search["recording"]["trials"]]
    best = max(scores) if task == "cifar10" else min(scores)
    assert [alpha, eps, best] in of_search["recording"]["trials"]
    # an ordinary training at that setting, on the test data
    where, training = optimizers.experiment.task(run, CPU), run.config["training"]
    torch.manual_seed(0)
    net = optimizers.experiment.network(run).to(memory_format=torch.channels_last)
    optimizer = build(name, net.parameters(), alpha, eps, training["weight_decay"], training.get("clip"))
    for epoch in range(training["epochs"]):
        for step, batch in enumerate(where.batches(0, epoch, 0)):
            optimizer.param_groups[0]["lr"] = alpha * rate(training, (epoch + step / where.steps) / training["epochs"])
            optimizer.zero_grad()
            where.loss(net, batch).backward()
            optimizer.step()
    assert got["figures"][where.metric] == where.evaluate(net)


def test_an_epsilon_of_a_grid_is_read_from_its_axis_since_figures_have_six_decimals():
    grid = {"metric": "accuracy", "alphas": [0.1, 1.0], "epsilons": [1e-8, 1.0], "score": [[0.5, 0.7], [None, 0.6]]}
    assert optimizers.settings({"experiment": "grids", "recording": {"grid": grid}}) == (1.0, 1e-8)
    assert optimizers.settings({"experiment": "grids", "recording": {"grid": grid | {"metric": "BPC"}}}) == (0.1, 1e-8)


def test_what_a_run_rests_on_must_have_ended_well_and_is_one_process_s_work(monkeypatch):
    search = optimizers.search("quick", "images", "SGD")
    monkeypatch.setattr(_first, "find", lambda run: None)
    monkeypatch.setattr(runner, "compute", lambda run, device: {"state": "diverged"})
    with pytest.raises(
        LabError, match=rf"run {search.id} \(optimizers, SGD seed=0\), which this one rests on, diverged"
    ):
        _first.recorded(search, CPU)
    monkeypatch.setattr(_first.ranks, "count", lambda: 4)
    with pytest.raises(LabError, match="comes first: record it without torchrun"):
        _first.recorded(search, CPU)


def test_what_is_wrong_is_one_line():
    with pytest.raises(LabError, match=r"unknown optimizer 'Yogi' in Tables 6\.1 and 6\.2: choose one of SGD, Adam"):
        optimizers.run("quick", "cifar10", "Yogi")
    with pytest.raises(LabError, match="there is no task 'imagenet' at profile short: choose one of cifar10"):
        optimizers.run("short", "imagenet", "Adam")
    with pytest.raises(LabError, match="no AdaShift on ImageNet"):
        optimizers.run("paper", "imagenet", "AdaShift")
    with pytest.raises(LabError, match="unknown search 'sound': choose images or text"):
        optimizers.search("quick", "sound", "Adam")
    run = optimizers.run("quick", "cifar10", "Adam")
    old = run.config | {"method": run.config["method"] | {"search": "0" * 16}}
    with pytest.raises(LabError, match="rests on search 0000000000000000, which is not declared any more"):
        optimizers.search_of(dataclasses.replace(run, config=old))


# -- claims ------------------------------------------------------------------------------------------------------------


def record(run, **figures):
    """A finished record of a run, with made-up figures."""
    keys = ("experiment", "id", "profile", "seed")
    made = {key: getattr(run, key) for key in keys} | {"state": "finished", "config": run.config, "figures": figures}
    provenance = {"device": "a CPU", "precision": "float32", "torch": "2", "commit": None, "dirty": None, "cuda": None,
                  "seconds": 60.0, "recorded": "2026-01-01"}  # fmt: skip
    made |= {"data": {"name": run.config["data"]}, "provenance": provenance}
    return made | {"recording": {"alpha": 1.0, "epsilon": None if run.config["method"]["name"] == "SGD" else 1e-8}}


def judged(records):
    return {row.title: row for row in scoreboard.board(records, claims.claims()) if row.claim}


def test_every_row_of_chapter_6_but_the_gan_s_has_a_reason_of_its_own():
    for row in scoreboard.board([], claims.claims()):
        if row.chapter == 6 and row.why == scoreboard.UNCOVERED:
            assert all("FID" in unit or "GGAN" in what or "GAN" in what for what, unit in row.numbers), row


@pytest.mark.parametrize(
    ("profile", "cell_state", "order_state"),
    [("paper", "reproduced", "reproduced"), ("short", "not run", "same direction")],
)
def test_a_cell_and_a_comparison_are_judged(profile, cell_state, order_state):
    adam, sgd = ([record(run, accuracy=a + run.seed / 10000) for run in optimizers.column(profile, "cifar10", name)]
                 for name, a in (("Adam", 0.9635), ("SGD", 0.9614)))  # fmt: skip
    rows = judged([*adam, *sgd])
    cell = rows["Table 6.1: Adam, CIFAR-10 WRN 28-10 test error"]
    assert (cell.state, cell.measured.value) == (cell_state, pytest.approx(3.64))
    assert "α = 1, ε = 1e-08" in cell.measured.note
    order = rows["Table 6.1: Adam against SGD, CIFAR-10 WRN 28-10 test error"]
    assert (order.state, order.measured.value) == (order_state, pytest.approx(-0.21))
    text = [record(run, bpc=1.5) for name in ("Adam", "AvaGrad") for run in optimizers.column(profile, "text", name)]
    cell = judged(text)["Table 6.2: Adam, 3xLSTM(300) test BPC"]
    assert cell.state == ("differs" if profile == "paper" else "not run")
    assert scoreboard.page(text, claims.claims())  # provenance of bits per character too


def test_a_setting_at_the_rim_of_its_search_is_called_so():
    def said(name, alpha, eps):
        run = optimizers.column("short", "text", name)[0]
        made = record(run, bpc=2.0) | {"recording": {"alpha": alpha, "epsilon": eps}}
        return judged([made])[f"Table 6.2: {name}, 3xLSTM(300) test BPC"].measured.note.split(", ", 1)[1]

    assert said("Adam", 0.01, 1e-6) == "α = 0.01, ε = 1e-06"
    assert said("AdaBound", 0.003, 1e-4) == "α = 0.003 (the lowest tried), ε = 0.0001 (the highest tried)"
    assert said("SGD", 50.0, None) == "α = 50 (the highest tried)"


def test_a_comparison_has_both_sides_values_and_none_of_single_runs_a_verdict():
    records = [record(run, bpc=bits)
             for name, bpc in (("Adam", (2.0, 2.2, 2.4)), ("SGD", (2.5, 2.65, 2.8)))
             for run, bits in zip(optimizers.column("short", "text", name), bpc, strict=True)]  # fmt: skip
    row = judged(records)["Table 6.2: Adam against SGD, 3xLSTM(300) test BPC"]
    measured = row.measured
    assert (measured.value, measured.spread, measured.n) == (pytest.approx(-0.45), pytest.approx(0.25), 3)
    # s.e. sqrt((0.2^2 + 0.15^2) / 3) = 0.144, 3.7 degrees of freedom, t = 2.87: half a width of 0.41 below 0.45
    assert (len(measured.runs), len(measured.against), row.state) == (3, 3, "same direction")
    single = judged(records[::3])["Table 6.2: Adam against SGD, 3xLSTM(300) test BPC"]
    assert (single.measured.spread, single.measured.n, single.state) == (None, 1, "not run")


def test_numbers_of_two_data_sets_have_no_difference():
    records = [record(run, bpc=2.0) for run in optimizers.column("short", "text", "Adam")]
    records += [record(run, accuracy=0.9) for run in optimizers.column("short", "cifar10", "Adam")]
    page = scoreboard.page(records, [c for c in claims.claims() if c.row == "Adam" and not c.versus])
    text, images = (re.search(rf"{column}</span>.*?<details>", page, re.DOTALL)[0]
                    for column in (r"3xLSTM\(300\) test BPC", "CIFAR-10 WRN 28-10 test error"))  # fmt: skip
    assert 'data-is="difference">–</span>' in text
    assert "moby-dick, short, 10 epochs" in text
    assert 'data-is="difference">+6.36</span>' in images  # 10 % of error against 3.64
    assert "cifar10, short" not in images


def test_the_facts_of_the_grids_are_read_from_maps():
    def grid(run, best):
        alphas, epsilons = [0.1, 1.0, 10.0], [1e-8, 1e-4, 1.0]
        score = [[0.9 if a == best(e) else 0.5 for a in alphas] for e in epsilons]
        cells = [(a, e, score[i][j], 1e-3) for i, e in enumerate(epsilons) for j, a in enumerate(alphas)]
        kind = {"optimizer": run.config["method"]["name"], "network": "n", "metric": "accuracy"}
        return record(run, cells=9.0) | {
            "recording": grids.grid_recording(**kind, alphas=alphas, epsilons=epsilons, cells=cells)
        }

    runs_of = {r.config["method"]["name"]: r for r in grids.runs("short", part="images")}
    level, bent = grid(runs_of["AvaGrad"], lambda e: 1.0), grid(runs_of["Adam"], lambda e: min(10.0, 10 * e) or 0.1)
    rows = judged([level, bent])
    same = rows["6.4.2: Fig. 6.2: AvaGrad's best alpha for every epsilon"].measured
    assert same.value == 1.0
    assert "best for 3 of 3 epsilons" in same.note
    cheap = rows["6.4.3: Fig. 6.6: trials that AvaGrad takes with CGLD"]
    assert 1 <= cheap.measured.value <= 9
    assert "9 settings of small CNN" in cheap.measured.note
    assert rows["6.5.1: (6.13): stationary point, about"].state == "counted"


def test_sgd_s_rate_is_read_from_its_search():
    search = optimizers.search("short", "images", "SGD")
    row = judged([record(search, accuracy=0.5)])["6.3.3: SGD: best rate, found again in the search"]
    assert (row.state, row.measured.value) == ("not run", 1.0)

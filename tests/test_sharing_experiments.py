"""The runs of Chapter 3: what is declared, what a run records of its folds, and that a stop leaves no trace."""

import base64
import math
from contextlib import suppress
from dataclasses import replace
from statistics import mean

import pytest
import torch
from PIL import Image
from tiny_run import made_up

from lab import datasets
from lab.datasets import thesis
from lab.datasets.cifar100 import MD5
from lab.datasets.shortest_paths import CURRICULUM
from lab.experiments import claims
from lab.experiments.sharing import claims as claimed
from lab.experiments.sharing import images as sharing
from lab.experiments.sharing import shortest_paths as paths
from lab.figures.folding.recording import check_recording, program, similarities
from lab.models import path_cnn, swrn, wrn
from lab.runs import Run
from lab.training import Classification, Stopped, accuracy
from lab.training.batchnorm import reestimate
from lab.utils.errors import LabError
from principled import Relaxed, fold

TRAINING = sharing.PROTOCOL["quick"]["training"] | {"epochs": 2, "batch_size": 16, "evaluate_every": 1}
FOLDS = {"most": 4, "batches": 2, "steps": 2, "lr": 0.01}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr("lab.experiments.base.load", lambda name, split: few(made_up(name, split), 64))


def few(data, n):
    return replace(data, images=data.images[:n, :, ::2, ::2], labels=data.labels[:n])


def tiny(seed=0, **options):
    run = sharing.run("quick", **{"depth": 16, "width": 1, "templates": 2, "seed": seed} | options)
    method = run.config["method"] | {"folds": FOLDS}
    return replace(run, config=run.config | {"training": TRAINING, "method": method})


def tiny_paths(shared=True, lam=0.0):
    run = paths.run("quick", 5, 4, shared, lam=lam)
    training = run.config["training"] | {"epochs": 5, "batch_size": 16}
    config = run.config | {"grids": {"train": 48, "test": 32, "size": 8}, "training": training}
    return replace(run, config=config | {"method": run.config["method"] | {"folds": FOLDS}})


def compute(run, path, stop=lambda: False):
    return run.module.compute(run, torch.device("cpu"), path, lambda epoch: None, stop)


# -- declarations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["quick", "short", "paper"])
@pytest.mark.parametrize("experiment", [sharing, paths])
def test_every_run_is_declared_once_and_the_headline_is_repeated(experiment, profile):
    declared = experiment.runs(profile)
    assert len({run.id for run in declared}) == len(declared)
    head = sharing.shared(profile) if experiment is sharing else paths.contest(profile)
    assert {run.seed for run in head} == set(experiment.PROTOCOL[profile]["seeds"])
    shown = [*head, *(sharing.pictured(profile) if experiment is sharing else paths.deep(profile))]
    assert {run.id for run in shown} <= {run.id for run in declared}
    names = {run.config["method"]["name"] for run in declared}
    if profile != "paper":  # where names tell all points apart, as the intervals over seeds need
        assert len(names) == len({str(run.config) for run in declared})


def test_the_paper_protocol_is_the_theses():
    training = sharing.PROTOCOL["paper"]["training"]
    said = {f.id.removeprefix("ch3-cifar-"): f.value for f in thesis.facts(3) if f.id.startswith("ch3-cifar-")}
    assert (training["epochs"], training["batch_size"], training["lr"]) == (said["epochs"], said["batch"], said["lr"])
    assert training["weight_decay"] == said["weight-decay"]
    assert tuple(training["epochs"] * at for at in training["steps"]) == said["decay-epochs"]
    assert 1 / training["factor"] == said["decay-factor"]
    said = {f.id.removeprefix("paths-"): f.value for f in thesis.facts(3) if f.id.startswith("paths-")}
    task = paths.PROTOCOL["paper"]
    assert task["training"]["epochs"] == said["epochs"] * said["phases"] == said["epochs"] * len(CURRICULUM)
    assert (task["grids"]["train"], task["training"]["lr"]) == (said["samples"], said["lr"])
    assert (task["network"][0], task["deep"][0], task["lambda"]) == (
        said["cnn-layers"],
        said["deep-layers"],
        said["lambda"],
    )
    scnn = paths.contest("paper")[0].config["method"]
    assert scnn["templates"] == said["cnn-templates"]
    assert [at * task["training"]["epochs"] for at in paths.MOMENTS[:2]] == list(said["deep-epochs"][1:])


def test_every_wide_resnet_row_of_the_tables_is_runnable_at_paper():
    declared = {run.id: run for run in sharing.runs("paper")}
    named = {(t, r) for t in ("3.1", "3.2", "3.3") for r in thesis.table(t)["row"] if "WRN" in r}
    assert set(sharing.rows()) == named
    assert len(named) == 10 + 10 + 7
    assert {run.id for row in ("WRN 50-2", "SWRN 50-2") for run in sharing.row_runs("3.4", row)} <= set(declared)
    for table, row in named:
        runs = sharing.row_runs(table, row)
        assert {run.id for run in runs} <= set(declared)
        config = runs[0].config
        assert config["data"] == ("cifar100" if table == "3.2" else "cifar10")
        assert config["training"]["cutout"] == (16 if table == "3.3" else 0)
        assert row.split(" (")[0] == config["model"]
        if table != "3.3":
            assert len(runs) == 5
            assert config["method"]["dropout"] == thesis.value(table, row, "Dropout")
    assert not sharing.row_runs("3.1", "SWRN 28-10-2", "short")


def test_at_paper_the_cheapest_rows_come_first_and_every_first_seed_before_the_second():
    names = [run.label() for run in sharing.runs("paper")]
    assert names[:3] == ["SWRN 28-4-2, cutout seed=0", "SWRN 28-6-2, cutout seed=0", "SWRN 40-8-8 seed=0"]
    rest = sharing.runs("paper")[[name.split()[1] for name in names].index("28-10-4") :]
    rest = [run for run in rest if run.config["model"] not in ("WRN 40-8", "WRN 50-2", "SWRN 50-2")]
    first = [run.config["method"]["width"] for run in rest if run.seed == 0]
    assert first == sorted(first)
    assert [run.seed > 0 for run in rest] == sorted(run.seed > 0 for run in rest)


def test_table_3_3_has_the_better_dropout_of_table_3_1():
    dropout = {row: options["dropout"] for (table, row), options in sharing.rows().items() if table == "3.3"}
    assert dropout == {
        "WRN 28-10 (baseline with cutout)": 0.3, "SWRN 28-4-2": 0.0, "SWRN 28-6-2": 0.0, "SWRN 28-10": 0.0,
        "SWRN 28-10-2": 0.3, "SWRN 28-14": 0.3, "SWRN 28-14-2": 0.3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lam": -1.0}, "lambda must be a number from 0 on, not -1.0"),
        ({"lam": math.nan}, "lambda must be a number from 0 on, not nan"),
        ({"lam": 0.1, "templates": None}, "WRN 16-1 shares nothing: give it templates"),
        ({"dropout": 1.0}, "dropout is a probability below 1, not 1.0"),
    ],
)
def test_a_wrong_declaration_is_one_line(options, words):
    with pytest.raises(LabError, match=words):
        tiny(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shared": True, "lam": -1}, "lambda must be a number from 0 on, not -1"),
        ({"shared": False, "lam": 0.1}, "a plain CNN shares nothing: take the SCNN"),
    ],
)
def test_a_wrong_declaration_of_paths_is_one_line(options, words):
    with pytest.raises(LabError, match=words):
        paths.run("quick", 5, 4, **options)
    with pytest.raises(LabError, match="a phase has 8 grids, fewer than one batch of 16"):
        paths.Curriculum(paths.sets(8, 8, 8), {"epochs": 5, "batch_size": 16})


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run", [tiny(lam=0.01), tiny(templates=None), tiny_paths(lam=0.1), tiny_paths(False)], ids=lambda run: run.label()
)
def test_a_run_stopped_anywhere_ends_as_one_never_stopped(run, tmp_path):
    straight = compute(run, tmp_path / "straight.pt")
    calls, moments = [], (1, 3)

    def stop():
        calls.append(1)
        return len(calls) in moments

    for _ in moments:
        with suppress(Stopped):
            compute(run, tmp_path / "stopped.pt", stop)
    result = compute(run, tmp_path / "stopped.pt")
    assert len(calls) == max(moments)
    for part in ("figures", "curve", "recording"):
        assert result.get(part) == straight.get(part)
    same = zip(result["model"].state_dict().values(), straight["model"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


def test_what_is_recorded_is_what_the_network_has(tmp_path):
    result = compute(tiny(), tmp_path / "c.pt")
    check_recording(result["recording"])
    figures, recording = result["figures"], result["recording"]
    assert figures["parameters"] == sum(p.numel() for p in swrn(16, 1, 2).parameters())
    assert similarities(recording)[0][0] == 0
    assert similarities(recording)[-1][0] == TRAINING["epochs"]
    final = similarities(recording)[-1][1]
    assert figures["similarity"] == pytest.approx(mean(float(m[0, 1]) for m in final.values()), abs=1e-4)
    assert figures["similarity"] == pytest.approx(result["curve"][-1]["similarity"])
    assert recording["folds"][0]["parameters"] == sum(p.numel() for p in wrn(16, 1).parameters())
    assert (
        recording["folds"][-1]["layers"] == 1 + 3 * 3 + 1
    )  # first convolution, two layers and a loop a stage, linear layer
    assert all("score_bn" in measured for measured in recording["folds"])
    folds = recording["folds"]
    nine_tenths = folds.index(sharing.fold_at(recording, 0.9))
    assert {i for i, measured in enumerate(folds) if "score_tuned" in measured} == {
        0,
        nine_tenths,
        len(folds) // 2,
        len(folds) - 1,
    }
    drawn = sharing.as_drawn(tiny())  # the null: what the recording began with, drawn again from the seed
    assert all(torch.allclose(drawn[g].float(), m, atol=1e-4) for g, m in similarities(recording)[0][1].items())
    assert program(recording, recording["folds"][-1]).loops


def test_the_regulariser_makes_the_layers_more_alike_and_a_plain_network_records_no_fold(tmp_path):
    none, some = (compute(tiny(lam=lam), tmp_path / f"{lam}.pt")["figures"]["similarity"] for lam in (0.0, 0.3))
    assert some > none + 0.1


def test_a_plain_network_is_treated_as_a_fold_is_and_its_layers_are_compared_by_their_weights(tmp_path):
    result = compute(tiny(templates=None), tmp_path / "plain.pt")
    assert set(result["figures"]) == {"accuracy", "accuracy_bn", "accuracy_tuned", "parameters"}
    _, (last, trained) = similarities(result["recording"])
    assert (last, "folds" in result["recording"]) == (TRAINING["epochs"], False)
    one, other = (result["model"].get_parameter(f"stages.0.1.conv{c}.weight").detach().flatten() for c in (1, 2))
    expected = abs(float(torch.nn.functional.cosine_similarity(one, other, dim=0)))
    assert float(trained["stage1"][0, 1]) == pytest.approx(expected, abs=1e-4)
    task = sharing.experiment.task(tiny(), torch.device("cpu"))
    again = reestimate(result["model"], task, tiny().seed, FOLDS["batches"])
    assert result["figures"]["accuracy_bn"] == task.evaluate(again)
    tuner = sharing.experiment.tuner(tiny(templates=None), again)
    assert result["figures"]["accuracy_tuned"] == sharing.tune(again, task, tuner, FOLDS, tiny().seed)


def test_a_score_on_paths_does_not_depend_on_the_running_statistics():
    task = paths.Curriculum(paths.sets(48, 32, 8), {"epochs": 5, "batch_size": 16, "reestimate": 3})
    net = path_cnn(5, 4)
    good = task.evaluate(net)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += 100
    assert task.evaluate(net) == good != paths.score(net, task.sets[0][1])
    assert task.phase == 0
    assert all(torch.equal(state[name], p) for name, p in net.named_parameters())
    assert paths.score(net, task.sets[0][1]) == task.only(0).evaluate(net)


def test_the_coefficients_have_no_weight_decay_and_a_rate_of_their_own():
    net = swrn(16, 1, 2)
    weights, alpha = sharing.Sharing(0.0, 10.0, 1).groups(net, TRAINING)
    assert weights["weight_decay"] == TRAINING["weight_decay"]
    assert (alpha["weight_decay"], alpha["lr"]) == (0.0, 10 * TRAINING["lr"])
    assert {id(p) for p in alpha["params"]} == {id(a) for a in net.relaxations[0].alpha.values()}


def test_a_fold_at_a_threshold_is_the_last_that_it_allows():
    recording = {"folds": [{"level": level} for level in (1.0, 0.95, 0.9, 0.2)]}
    assert [sharing.fold_at(recording, t)["level"] for t in (1.0, 0.96, 0.9, 0.5, 0.0)] == [1.0, 1.0, 0.9, 0.9, 0.2]


def test_figure_3_5_folds_all_stages_but_the_first_to_two_layers(monkeypatch):
    net = swrn(22, 1, 3)
    with torch.no_grad():
        for alpha in net.relaxations[0].alpha.values():
            alpha.add_(0.1 * torch.randn_like(alpha))
    folded = []
    data = few(made_up("", "train"), 64)
    task = Classification((data, data), TRAINING)
    monkeypatch.setattr(task, "evaluate", lambda net: folded.append(net) or 0.5)
    assert sharing.loops_of_two(net, task, 1, 0) == {"accuracy_two": 0.5, "accuracy_two_bn": 0.5}
    layers = [step.layer for step in folded[0].program.steps if step.group]
    groups = {g: {s.layer for s in folded[0].program.steps if s.group == g} for g in ("stage1", "stage2", "stage3")}
    assert len(layers) == 12
    assert {g: len(layers) for g, layers in groups.items()} == {"stage1": 4, "stage2": 2, "stage3": 2}


# -- the phases --------------------------------------------------------------------------------------------------------


def test_the_phases_follow_each_other_and_each_is_scored_on_its_own_grids(tmp_path):
    result = compute(tiny_paths(), tmp_path / "c.pt")
    assert [row["phase"] for row in result["curve"]] == [1, 2, 3, 4, 5]
    assert {f"f1.phase{row['phase']}": row["f1"] for row in result["curve"]}.items() <= result["figures"].items()
    assert result["figures"]["f1"] == result["curve"][-1]["f1"]
    assert result["recording"]["metric"] == "F1"
    task = paths.Curriculum(paths.sets(48, 32, 8), {"epochs": 10, "batch_size": 16})
    assert [task.phase_of(epoch) for epoch in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    net = path_cnn(5, 4)
    scores = []
    for phase in range(5):
        list(task.batches(0, 2 * phase, 0))
        scores.append(task.evaluate(net))
    last = task.only(-1)
    list(last.batches(0, 0, 0))
    assert last.evaluate(net) == scores[-1]


def test_training_and_test_grids_differ_and_grow_harder():
    for train, test in paths.sets(48, 32, 8):
        assert train.distance == test.distance
        assert not any(torch.equal(test.inputs[0], grid) for grid in train.inputs)
    assert [train.distance for train, _ in paths.sets(48, 32, 8)] == list(CURRICULUM)


def test_an_epoch_shows_every_grid_once_in_an_order_of_its_own():
    task = paths.Curriculum(paths.sets(48, 32, 8), {"epochs": 5, "batch_size": 16})
    one, again, other = (torch.cat([x for x, _ in task.batches(0, epoch, 0)]) for epoch in (1, 1, 2))
    assert torch.equal(one, again)
    assert one.shape == other.shape == (48, 2, 8, 8)
    grids = task.sets[1][0].inputs.float()
    assert sorted(g.flatten().tolist() for g in one) == sorted(g.flatten().tolist() for g in grids)
    rest = torch.cat([x for x, _ in task.batches(0, 1, 2)])
    assert torch.equal(rest, one[32:])


def test_two_ranks_take_the_halves_of_a_batch(monkeypatch):
    task = paths.Curriculum(paths.sets(48, 32, 8), {"epochs": 5, "batch_size": 16})
    batch = next(task.batches(0, 0, 0))
    assert all(torch.equal(a, b) for a, b in zip(task.part(batch), batch, strict=True))
    monkeypatch.setattr("lab.training.distributed.slice_of", lambda n: slice(n // 2, n))
    assert all(torch.equal(a, b[8:]) for a, b in zip(task.part(batch), batch, strict=True))


# -- BatchNorm anew ----------------------------------------------------------------------------------------------------


def test_reestimated_statistics_are_those_of_the_batches_and_repair_a_broken_network():
    data = few(made_up("", "train"), 64)
    task = Classification((data, data), TRAINING)
    torch.manual_seed(0)
    net = wrn(10, 1).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += 100
    state = torch.random.get_rng_state()
    assert reestimate(net, task, seed=3, batches=4) is net
    assert torch.equal(state, torch.random.get_rng_state())
    assert not net.training
    seen = torch.stack([net.conv(images).mean((0, 2, 3)) for images, _ in task.batches(3, 0, 0)]).mean(0)
    torch.testing.assert_close(net.stages[0][0].norm1.running_mean, seen, atol=0.02, rtol=0.02)
    assert net.norm.num_batches_tracked == 4
    assert accuracy(net, data) >= 0
    linear = torch.nn.Linear(2, 2)
    assert reestimate(linear, task) is linear


def test_imagenet_runs_are_declared_at_paper_and_run_on_a_folder_of_images(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    shared = next(run for run in sharing.runs("paper") if run.config["model"] == "SWRN 50-2")
    with pytest.raises(LabError, match=r"ImageNet is not in .*imagenet"):
        sharing.experiment.check(shared)
    source = torch.Generator().manual_seed(0)
    for split, count in (("train", 4), ("val", 2)):
        for label in range(6):
            folder = tmp_path / "imagenet" / split / f"n{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (40, 44, 3), generator=source, dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(folder / f"{i}.JPEG")
    sharing.experiment.check(shared)
    said = {f.id.removeprefix("ch3-imagenet-"): f.value for f in thesis.facts(3) if f.id.startswith("ch3-imagenet-")}
    training = shared.config["training"]
    assert (training["epochs"], training["batch_size"], training["lr"]) == (said["epochs"], said["batch"], said["lr"])
    assert [training["epochs"] * at for at in training["steps"]] == list(said["decay-epochs"])
    assert (training["weight_decay"], 1 / training["factor"]) == (said["weight-decay"], said["decay-factor"])
    monkeypatch.setattr(sharing, "swrn50_2", lambda classes: swrn(16, 1, classes=classes))
    monkeypatch.setitem(sharing.CLASSES, "imagenet", 6)
    method = shared.config["method"] | {"folds": FOLDS}
    small = training | {"epochs": 2, "batch_size": 8, "size": 32, "workers": 0}
    result = compute(replace(shared, config=shared.config | {"training": small, "method": method}), tmp_path / "c.pt")
    assert 0 <= result["figures"]["accuracy"] <= result["figures"]["top5"] <= 1
    assert result["figures"]["top5"] > 0.5  # five of six classes
    check_recording(result["recording"])


# -- claims ------------------------------------------------------------------------------------------------------------


def test_sizes_are_counted_on_the_networks():
    rows = {(c.table, c.row, c.column): c for c in claimed.claims() if c.table and not c.versus}
    result = rows["3.1", "SWRN 28-10-2", "Params (M)"].measure([])
    assert result.value == pytest.approx(17.125630)
    assert rows["3.1", "SWRN 28-10-2", "Compression ratio"].measure([]).value == pytest.approx(36479194 / 17125630)
    assert rows["3.2", "SWRN 28-10-1", "Group size"].measure([]).value == 6
    for key, claim in rows.items():
        if key[2] in claimed.SIZES and key[0] != "3.4":
            assert claim.agrees(claim.measure([]).value), key


def record(run, **figures):
    recording = figures.pop("recording", None)
    made = {"id": run.id, "profile": run.profile, "config": run.config, "seed": run.seed, "figures": figures}
    return (
        made | {"provenance": {"seconds": 7200.0, "device": "a GPU"}} | ({"recording": recording} if recording else {})
    )


def fact(name):
    return next(c for c in claims.every() if c.fact == name)


def test_errors_are_in_percent_and_orders_are_their_differences():
    shared, plain = (sharing.row_runs("3.1", row) for row in ("SWRN 28-10 (dropout 0.0)", "WRN 28-10 (dropout 0.0)"))
    records = [record(r, accuracy=0.96 + r.seed / 1000) for r in shared] + [record(r, accuracy=0.95) for r in plain]
    cell = next(
        c
        for c in claims.every()
        if (c.table, c.row, c.column, c.versus) == ("3.1", "SWRN 28-10 (dropout 0.0)", "Test error", "")
    )
    assert cell.measure(records).value == pytest.approx(3.8)
    assert cell.measure(records).n == 5
    order = next(c for c in claims.every() if c.row == cell.row and c.versus)
    assert order.measure(records).value == pytest.approx(-1.2)
    assert order.agrees(-1.2)
    assert fact("nas-swrn-hours").measure([record(r) for r in sharing.row_runs("3.3", "SWRN 28-10-2")]).value == 2
    assert fact("nas-swrn-hours").measure([]) == "no run is recorded"


def test_what_folds_cost_is_measured_before_batchnorm_is_estimated_anew():
    folds = [
        {"level": 1.0, "score": 0.95, "layers": 40},
        {"level": 0.8, "score": 0.948, "layers": 24},
        {"level": 0.7, "score": 0.9, "layers": 20},
    ]
    records = [
        record(r, recording={"folds": folds}, accuracy=0.95, accuracy_two=0.949)
        for r in [*sharing.shared("paper"), *sharing.figure_3_5()]
    ]
    cost = fact("fold-40-8-8-error")
    assert cost.measure(records).value == pytest.approx(0.2)
    assert "24 layers" in cost.measure(records).note
    assert cost.agrees(0.2)
    assert not cost.agrees(0.4)


def test_a_chessboard_favours_the_second_neighbour_and_a_band_the_first():
    layer = torch.arange(10)
    apart = (layer[:, None] - layer[None]).abs()
    assert claimed.favourite([(apart % 2 == 0).float()] * 3) == 2
    assert claimed.favourite([1 / (1 + apart)] * 3) == 1


def test_a_matrix_has_settled_when_half_of_the_way_is_done():
    def moment(epoch, value):  # one pair of layers, so one entry: 16 bits, 65535 for 1
        return {
            "epoch": epoch,
            "similarity": {"g": base64.b64encode(round(value * 65535).to_bytes(2, "little")).decode()},
        }

    recording = {
        "groups": {"g": ["a", "b"]},
        "moments": [moment(0, 0), moment(5, 0.3), moment(25, 0.5), moment(200, 0.8)],
    }
    assert claimed.settled({"recording": recording}) == 25


# -- data --------------------------------------------------------------------------------------------------------------


def test_drawn_grids_have_a_checksum_and_cannot_be_loaded():
    assert datasets.checksum("paths") == datasets.checksum("paths")
    with pytest.raises(LabError, match="unknown data set 'paths'"):
        datasets.load("paths", "train")


def test_cifar100_comes_from_torchvisions_files_verified(tmp_path, monkeypatch):
    import hashlib
    import pickle

    from lab.utils.vision import torchvision

    kind = torchvision.datasets.CIFAR100
    assert [kind.train_list[0][1], kind.test_list[0][1], kind.meta["md5"]] == list(MD5.values())
    folder = tmp_path / "cifar100" / kind.base_folder
    folder.mkdir(parents=True)
    with pytest.raises(LabError, match=r"CIFAR-100 is not in .*cifar100, or its files are altered"):
        datasets.load("cifar100", "train", tmp_path)
    pixels = torch.randint(0, 256, (6, 3072), dtype=torch.uint8)
    for split, rows in (("train", slice(0, 4)), ("test", slice(4, 6))):
        content = pickle.dumps({"data": pixels[rows].numpy(), "fine_labels": [7, 99, 0, 3][: len(pixels[rows])]})
        (folder / split).write_bytes(content)
        monkeypatch.setattr(kind, f"{split}_list", [[split, hashlib.md5(content).hexdigest()]])
    meta = pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]})
    (folder / "meta").write_bytes(meta)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": hashlib.md5(meta).hexdigest()})
    train, test = (datasets.load("cifar100", split, tmp_path) for split in ("train", "test"))
    assert torch.equal(train.images, pixels[:4].view(4, 3, 32, 32))
    assert torch.equal(test.images, pixels[4:].view(2, 3, 32, 32))
    assert (train.labels.tolist(), test.labels.tolist()) == ([7, 99, 0, 3], [7, 99])
    assert len(train.classes) == 100
    torch.testing.assert_close(test.mean, train.images.float().mean((0, 2, 3)) / 255)
    (folder / "test").write_bytes(b"other")
    with pytest.raises(LabError, match="its files are altered"):
        datasets.load("cifar100", "test", tmp_path)


def test_the_relaxed_network_is_left_as_it_is_by_measuring(tmp_path):
    run = tiny()
    data = few(made_up("", "train"), 64)
    task = Classification((data, data), TRAINING)
    net = swrn(16, 1, 2)
    with torch.no_grad():
        net.relaxations[0].alpha["stage1"].add_(0.1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    history = [(0.0, sharing.alphas(net))]
    sharing.fold_and_measure(
        net, history, task, lambda folded: torch.optim.SGD(folded.parameters(), lr=0.1), FOLDS,
        seed=0, epoch=1, network=run.config["model"],
    )  # fmt: skip
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert isinstance(net, Relaxed)
    assert isinstance(run, Run)
    assert fold(net, 0.0).program.loops

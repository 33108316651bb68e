"""The second phase of a run: the optimizers and projections are the method's own there too, for every method."""

import copy
import dataclasses

import pytest
import torch
from test_training import CONFIG, DATA, TASK, small_net

from lab.datasets import CLASSES, Images
from lab.experiments.precision import activations, few_bits
from lab.models import ResNet
from lab.runs import declaration
from lab.runs.registry import EXPERIMENTS
from lab.training import Classification, Trainer

QUICK = ("model", "data", "width", "vocabulary")
"""What a longer profile's run takes from a quick one here, so that all networks are small."""


def methods():
    """(experiment, method's name): a run of each kind that has a second phase, its network and data those
    of ``quick``.
    """
    chosen = {}
    for name in EXPERIMENTS:
        experiment = declaration(name)
        for profile in ("quick", "short"):
            for run in experiment.runs(profile):
                key = (name, run.config["method"]["name"])
                if key in chosen or not run.config.get("training", {}).get("finetune_epochs"):
                    continue
                first = experiment.runs("quick")
                if first:
                    small = {part: first[0].config[part] for part in QUICK if part in first[0].config}
                    chosen[key] = dataclasses.replace(run, config=run.config | small)
    return chosen


METHODS = methods()


def declared(trainer):
    """Parameter's name, without the wrappers' prefix, to what trains it: the optimizer's kind and its
    group's options.
    """
    names = {id(p): name.replace("net.", "") for name, p in trainer.net.named_parameters()}
    groups = [(type(o), group) for o in trainer.optimizers for group in o.param_groups]
    options = {
        names[id(p)]: (kind, {k: v for k, v in g.items() if k != "params"}) for kind, g in groups for p in g["params"]
    }
    assert sorted(options) == sorted(names.values())  # each parameter in one group
    return options


def task_of(run):
    """A stand-in task: blank images of the run's size, scored without a look."""
    side = 32 if run.config["data"] not in ("cifar10-mini-16",) else 16
    classes = CLASSES.get(run.config["data"], 10)
    blank = Images(
        torch.zeros(40, 3, side, side, dtype=torch.uint8), torch.arange(40) % classes, tuple(map(str, range(classes))),
        torch.full((3,), 0.5), torch.full((3,), 0.25), run.config["data"], "00",
    )  # fmt: skip
    return Classification((blank, blank), run.config["training"] | {"batch_size": 8})


@pytest.mark.parametrize("key", METHODS, ids=" ".join)
def test_what_trains_a_parameter_trains_it_in_the_second_phase_too(key):
    run = METHODS[key]
    small = {
        name: value
        for name, value in {"episodes": 2, "explore": 1, "images": 8}.items()
        if name in run.config["method"]
    }
    run = dataclasses.replace(run, config=run.config | {"method": run.config["method"] | small})
    experiment, task = declaration(key[0]), task_of(run)
    net, method = experiment.network(run), experiment.method(run, task)
    trainer = Trainer(run.id, net, method, run.config["training"], task)
    search = declared(trainer)
    trainer._fix()
    second = declared(trainer)
    common = search.keys() & second.keys()
    assert common
    assert {name: second[name] for name in common} == {name: search[name] for name in common}


def test_the_test_sees_groups_of_their_own():
    assert {
        ("precision", name) for name in ("dsq", "lq-nets", "lsq", "bsq", "slb", "smol", "retrain")
    } <= METHODS.keys()
    assert {
        ("activations", "pact"),
        ("activations", "smol-a"),
        ("combining", "share+mask+bits, AvaGrad"),
    } <= METHODS.keys()
    assert {name for name, _ in METHODS} == {
        "pruning", "methods", "precision", "mobile", "scales", "structure", "activations", "generation", "translation",
        "combining",
    }  # fmt: skip


def begun(method, net=None):
    """A run that stands at the start of its second phase."""
    trainer = Trainer("run", small_net() if net is None else net, method, CONFIG, TASK)
    trainer._fix()
    trainer.epoch = CONFIG["epochs"]
    return trainer


def first_step(trainer):
    """Gradients of the first step of the second phase by name, and the parameters before it; then the step is taken."""
    [images, labels] = next(TASK.batches(trainer.seed, trainer.epoch, 0))
    twin = copy.deepcopy(trainer.net).train()
    TASK.loss(twin, (images, labels)).backward()
    next(trainer.steps_of_epoch())
    return {name: p.grad for name, p in twin.named_parameters()}, {
        name: p.detach() for name, p in twin.named_parameters()
    }


def test_dsqs_bounds_train_at_a_hundredth_of_the_second_phases_rate_and_without_decay():
    trainer = begun(few_bits.DSQWeights({"name": "dsq", "bits": 2}, 0), ResNet(1, 3))
    gradients, before = first_step(trainer)
    after = dict(trainer.net.named_parameters())
    nesterov = 1 + CONFIG["momentum"]  # of the first step, whose momentum is the gradient itself
    for name, rate, decay in [("relaxations.0.upper", 1e-4, 0.0), ("net.norm.bias", 1e-2, CONFIG["weight_decay"])]:
        descent = gradients[name] + decay * before[name]
        torch.testing.assert_close(after[name].detach(), before[name] - rate * nesterov * descent)
    assert gradients["relaxations.0.upper"].abs().max() > 0


def test_lq_nets_fits_its_basis_in_the_second_phase():
    trainer = begun(few_bits.LQNetsWeights({"name": "lq-nets", "bits": 2}, 0), ResNet(1, 3))
    lq = trainer.net.relaxations[0]
    twin = copy.deepcopy(lq)
    first_step(trainer)
    twin.update_(dict(trainer.net.net.named_parameters()))
    assert torch.equal(twin.basis, lq.basis)


@pytest.mark.parametrize("name", ["pact", "smol-a"])
def test_ranges_of_activations_have_their_own_decay_in_the_second_phase(name):
    config = {"bits": 2, "alpha": 6.0, "alpha_decay": 0.5, "p_init": 8.0, "lr_s": 0.1}
    method = activations.METHODS[name](config, DATA[0].images[:1].float())
    trainer = begun(method)
    gradients, before = first_step(trainer)
    descent = gradients["2.alpha"] + 0.5 * 6.0
    expected = before["2.alpha"] - 0.01 * (1 + CONFIG["momentum"]) * descent
    torch.testing.assert_close(trainer.net[2].alpha.detach(), expected)

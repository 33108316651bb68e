"""The callbacks inside the real loops of Lightning and Hugging Face, and loops that skip their events."""

import pytest
import torch
import torch.nn.functional as F
from test_snippets import blocks
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset
from torchvision_operator import declare

from principled import ContinuousMask, Relaxed, Schedule, Smol, decay_groups
from principled.integrations import Driver, relaxed_in

declare()
IMAGES, LABELS = torch.randn(24, 1, 8, 8), torch.arange(24) % 3
EPOCHS, BATCH = 3, 6
LAM = (1e-3, 1e-4)


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))


def relaxed():
    torch.manual_seed(0)
    return with_equal_noise(Relaxed(network(), *relaxations()))


def relaxations():
    return ContinuousMask(-0.02), Smol(6.0, where=nn.Linear)


def with_equal_noise(net):
    """The same noise in each step, whatever else draws random numbers in a loop."""
    net.register_forward_pre_hook(lambda *call: torch.manual_seed(1) and None)
    return net


def optimizer_of(net):
    weights, variables = decay_groups(net, 1e-3)
    return torch.optim.SGD([weights, variables | {"lr": 1.0}], lr=0.1, momentum=0.9)


def by_hand(accumulate=1):
    """The same training as the trainers', written out."""
    net = relaxed()
    optimizer, steps = optimizer_of(net), EPOCHS * len(LABELS) // BATCH // accumulate
    schedule = Schedule(net, steps, LAM, 100.0)
    for start in range(0, steps * accumulate):
        rows = slice(start * BATCH % len(LABELS), start * BATCH % len(LABELS) + BATCH)
        (F.cross_entropy(net(IMAGES[rows]), LABELS[rows]) / accumulate).backward()
        if (start + 1) % accumulate == 0:
            schedule.penalty().backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return schedule


def assert_equal(schedule, callback):
    own, theirs = schedule.net.state_dict(), callback.schedule.net.state_dict()
    assert own.keys() == theirs.keys()
    for name, value in own.items():
        assert_close(theirs[name], value, msg=name)
    assert callback.schedule.taken == schedule.taken
    x = IMAGES[:3]
    assert isinstance(callback.hardened, nn.Sequential)
    assert_close(callback.hardened(x), schedule.harden()(x))


# -- Lightning --------------------------------------------------------------------------------------------------------

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed: pip install lightning")


class Module(lightning.LightningModule):
    """A user's module around a relaxed network."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, index):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return optimizer_of(self.net)


class Plain(Module):
    """Nothing is relaxed."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Raw(Module):
    """Steps a raw optimizer, which Lightning's events do not see."""

    def __init__(self, net):
        super().__init__(net)
        self.automatic_optimization = False

    def training_step(self, batch, index):
        self.optimizers().optimizer.step()


def lightning_trainer(folder, *callbacks, epochs=EPOCHS, **options):
    return lightning.Trainer(
        max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", devices=1, default_root_dir=folder,
        logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip


@pytest.fixture
def loader():
    return DataLoader(TensorDataset(IMAGES, LABELS), batch_size=BATCH)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_trains_as_a_loop_by_hand(accumulate, loader, tmp_path):
    from principled.integrations.lightning import ScheduleCallback

    module, callback = Module(relaxed()), ScheduleCallback(LAM, 100.0)
    trainer = lightning_trainer(tmp_path, callback, accumulate_grad_batches=accumulate)
    trainer.fit(module, loader)
    schedule = by_hand(accumulate)
    assert_equal(schedule, callback)
    assert {name: float(value) for name, value in trainer.callback_metrics.items()} == pytest.approx(
        schedule.figures(), rel=1e-6
    )


def test_lightning_goes_on_from_a_checkpoint(loader, tmp_path):
    from principled.integrations.lightning import ScheduleCallback

    class Stop(lightning.Callback):
        """Ends training after the first epoch, as a time limit would."""

        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = True

    first = lightning_trainer(tmp_path, ScheduleCallback(LAM, 100.0), Stop())
    with pytest.warns(UserWarning, match="hardened after 4 of 12 steps"):
        first.fit(Module(relaxed()), loader)
    first.save_checkpoint(tmp_path / "first.ckpt")
    callback = ScheduleCallback(LAM, 100.0)
    lightning_trainer(tmp_path, callback).fit(Module(relaxed()), loader, ckpt_path=tmp_path / "first.ckpt")
    assert callback.schedule.done
    assert callback.schedule.net.relaxations[0].beta == pytest.approx(100.0)


def test_lightning_that_has_nothing_relaxed_no_end_or_no_events_is_one_line(loader, tmp_path):
    from principled.integrations.lightning import ScheduleCallback

    with pytest.raises(ValueError, match="Plain holds 0 relaxed networks and the callback drives one"):
        lightning_trainer(tmp_path, ScheduleCallback()).fit(Plain(network()), loader)
    with pytest.raises(ValueError, match="steps must be a finite number"):
        lightning_trainer(tmp_path, ScheduleCallback(), epochs=-1).fit(Module(relaxed()), loader)
    with pytest.raises(RuntimeError, match="heard of no step until the end of training: the trainer's loop skips"):
        lightning_trainer(tmp_path, ScheduleCallback()).fit(Raw(relaxed()), loader)


# -- Hugging Face -----------------------------------------------------------------------------------------------------

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="the Trainer needs accelerate, which is not installed")


class Classifier(nn.Module):
    """What the Trainer wants of a network: named inputs, a loss where labels are."""

    def __init__(self):
        super().__init__()
        self.layers = network()

    def forward(self, images, labels=None):
        logits = self.layers(images)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


ROWS = [{"images": image, "labels": label} for image, label in zip(IMAGES, LABELS, strict=True)]


class InOrder(transformers.Trainer):
    """Batches in the order of the rows, as in the loop by hand."""

    def _get_train_sampler(self, *rows):
        return torch.utils.data.SequentialSampler(ROWS)


class NoEvents(InOrder):
    """A loop of a user's own that forgets an event."""

    skipped: str

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        setattr(self.callback_handler, self.skipped, lambda args, state, control, **kwargs: control)


def trainer_of(folder, net, callback, kind=InOrder, optimizer=None, **options):
    args = transformers.TrainingArguments(
        folder, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, use_cpu=True, report_to=[], logging_steps=2,
        max_grad_norm=0.0, lr_scheduler_type="constant", disable_tqdm=True, **({"save_strategy": "no"} | options),
    )  # fmt: skip
    optimizers = (optimizer or optimizer_of(net), None)
    return kind(net, args, train_dataset=ROWS, optimizers=optimizers, callbacks=[callback])


def classifier():
    torch.manual_seed(0)
    return with_equal_noise(Relaxed(Classifier(), *relaxations()))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_trainer_trains_as_a_loop_by_hand(accumulate, tmp_path):
    from principled.integrations.transformers import ScheduleCallback

    model, callback = classifier(), ScheduleCallback(LAM, 100.0)
    trainer = trainer_of(tmp_path, model, callback, gradient_accumulation_steps=accumulate)
    trainer.train()
    schedule = by_hand(accumulate)
    theirs = {name.replace("net.layers.", "net."): value for name, value in model.state_dict().items()}
    for name, value in schedule.net.state_dict().items():
        if "_extra_state" not in name:
            assert_close(theirs[name], value, msg=name)
    assert callback.schedule.taken == schedule.taken
    assert isinstance(callback.hardened, Classifier)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert {"zeros", "bits"} <= logged[-1].keys()
    assert logged[-1]["zeros"] == pytest.approx(schedule.figures()["zeros"])


def test_the_trainer_goes_on_from_a_checkpoint(tmp_path):
    from principled.integrations.transformers import ScheduleCallback

    whole, callback = classifier(), ScheduleCallback(LAM, 100.0)
    trainer_of(tmp_path, whole, callback, save_strategy="epoch").train()
    model, resumed = classifier(), ScheduleCallback(LAM, 100.0)
    trainer_of(tmp_path, model, resumed).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.schedule.done
    for name, value in whole.state_dict().items():
        assert_close(model.state_dict()[name], value, msg=name)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ("on_pre_optimizer_step", "took a step without calling on_pre_optimizer_step, so the penalty does not act"),
        ("on_step_end", "heard of no step until the end of training: the trainer's loop skips events"),
        ("on_train_begin", "never of the start of training: the trainer's loop skips events"),
    ],
)
def test_a_trainer_whose_loop_skips_an_event_is_one_line(event, line, tmp_path):
    from principled.integrations.transformers import ScheduleCallback

    kind = type("Skips", (NoEvents,), {"skipped": event})
    with pytest.raises(RuntimeError, match=line) as error:
        trainer_of(tmp_path, classifier(), ScheduleCallback(LAM), kind).train()
    assert "\n" not in str(error.value)


def test_a_trainer_with_nothing_relaxed_or_scaled_gradients_is_one_line(tmp_path):
    from principled.integrations.transformers import ScheduleCallback

    net = Classifier()
    plain = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="Classifier holds 0 relaxed networks"):
        trainer_of(tmp_path, net, ScheduleCallback(), optimizer=plain).train()
    trainer = trainer_of(tmp_path, classifier(), ScheduleCallback())
    trainer.args.fp16 = True
    with pytest.raises(ValueError, match="fp16 with max_grad_norm=0 keeps gradients scaled"):
        trainer.train()


def test_the_trainers_own_optimizer_is_told_when_it_decays_the_mask(tmp_path):
    from principled.integrations.transformers import ScheduleCallback

    model = classifier()
    decaying = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    with pytest.warns(UserWarning, match=r"decays relaxations\.0\.s"):
        trainer_of(tmp_path, model, ScheduleCallback(LAM), optimizer=decaying).train()


# -- both -------------------------------------------------------------------------------------------------------------


def test_the_outermost_relaxed_network_is_driven():
    net = relaxed()
    assert relaxed_in(nn.Sequential(net)) is net
    assert relaxed_in(Relaxed(nn.Sequential(nn.Conv2d(1, 1, 3)), ContinuousMask())).net[0].weight.shape == (1, 1, 3, 3)
    with pytest.raises(ValueError, match="holds 2 relaxed networks"):
        relaxed_in(nn.Sequential(relaxed(), relaxed()))


def test_a_driver_without_a_start_says_so():
    with pytest.raises(RuntimeError, match=r"heard of a step and never of the start of training"):
        Driver().took_step("before")


def test_the_page_on_fine_tuning_runs(loader, tmp_path):
    loop, callback, smaller = blocks("docs/fine-tuning.md")
    batches = [batch for _ in range(EPOCHS) for batch in loader]

    def train(net):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for x, y in batches:
            optimizer.zero_grad()
            (F.cross_entropy(net(x), y) + 0.01 * net.penalty()).backward()
            optimizer.step()

    given = {
        "torch": torch, "cross_entropy": F.cross_entropy, "trained": network(), "epochs": EPOCHS, "loader": loader,
        "batches": batches, "train": train, "images": IMAGES, "module": Module(relaxed()),
        "Trainer": lambda callbacks: lightning_trainer(tmp_path, *callbacks),
    }  # fmt: skip
    for block in (loop, callback, smaller):
        exec(compile(block, "the page", "exec"), given)
    assert given["schedule"].done
    assert type(given["sparse"]) is type(given["callback"].hardened) is type(given["small"]) is nn.Sequential

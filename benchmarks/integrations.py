"""What the callbacks for Lightning and Hugging Face's Trainer add to a step: ``python benchmarks/integrations.py``.

A relaxed ResNet-20 is trained inside each library's real loop, with a mask and, on its linear layer, learned
precisions. The time spent in the callback (penalty's gradient, clipping, temperature) is held against the time of all
else in the same steps, so that whatever else the machine does hits both alike.
"""

import argparse
import logging
import tempfile
import time
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from lab.book import benchmarks
from lab.models import resnet20
from principled import ContinuousMask, Relaxed, Smol, decay_groups

NEEDS = "Lightning and transformers (`pip install lightning 'transformers[torch]'`)"
LIBRARY = []
"""Names that a torchvision built for another torch needs in order to load; both libraries import it."""


class Clock:
    """Seconds inside a callback's hooks, and in whole steps."""

    def __init__(self, callback: object, warm_up: int) -> None:
        self.inside = self.steps = 0.0
        self.warm_up, self.seen, self.start = warm_up, 0, None
        for name in dir(callback):
            if name.startswith("on_") and name in vars(type(callback)):
                setattr(callback, name, self._timed(getattr(callback, name)))

    def _timed(self, hook):
        def timed(*args, **options):
            start = time.perf_counter()
            result = hook(*args, **options)
            if self.start is not None:
                self.inside += time.perf_counter() - start
            return result

        return timed

    def begin(self) -> None:
        """A step begins."""
        self.seen += 1
        self.start = time.perf_counter() if self.seen > self.warm_up else None

    def end(self) -> None:
        """A step ended, all hooks called."""
        if self.start is not None:
            self.steps += time.perf_counter() - self.start
        self.start = None

    def ratio(self) -> float:
        return self.inside / (self.steps - self.inside)


def network() -> Relaxed:
    torch.manual_seed(0)
    return Relaxed(Images(), ContinuousMask(-0.05), Smol(8.0, where=nn.Linear))


class Images(nn.Module):
    """A ResNet-20 as the Trainer calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet20()

    def forward(self, images, labels):
        return {"loss": F.cross_entropy(self.net(images), labels)}


def optimizer(net: Relaxed) -> torch.optim.Optimizer:
    weights, variables = decay_groups(net, 5e-4)
    return torch.optim.SGD([weights, variables | {"lr": 0.2}], lr=0.1, momentum=0.9, nesterov=True)


def under_lightning(rows: list, steps: int, batch: int, warm_up: int) -> Clock:
    import lightning.pytorch as lightning

    from principled.integrations.lightning import ScheduleCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, each, index):
            return self.net(**each)["loss"]

        def configure_optimizers(self):
            return optimizer(self.net)

    class Marks(lightning.Callback):
        def on_train_batch_start(self, *args) -> None:
            clock.begin()

    class Last(lightning.Callback):
        def on_train_batch_end(self, *args) -> None:
            clock.end()

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    callback = ScheduleCallback(1e-8)
    clock = Clock(callback, warm_up)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_steps=steps, accelerator="cpu", devices=1, callbacks=[Marks(), callback, Last()], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(Module(), torch.utils.data.DataLoader(rows, batch_size=batch))
    return clock


def under_the_trainer(rows: list, steps: int, batch: int, warm_up: int) -> Clock:
    import transformers

    from principled.integrations.transformers import ScheduleCallback

    class Marks(transformers.TrainerCallback):
        def on_step_begin(self, *args, **options) -> None:
            clock.begin()

    class Last(transformers.TrainerCallback):
        def on_step_end(self, *args, **options) -> None:
            clock.end()

    callback = ScheduleCallback(1e-8)
    clock = Clock(callback, warm_up)
    net = network()
    with tempfile.TemporaryDirectory() as folder:
        args = transformers.TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=batch, use_cpu=True, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        callbacks = [Marks(), callback, Last()]
        transformers.Trainer(
            net, args, train_dataset=rows, optimizers=(optimizer(net), None), callbacks=callbacks
        ).train()
    return clock


def declare_operators() -> None:
    """Let libraries import a torchvision whose own operators could not be loaded; none is called here."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        LIBRARY.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            LIBRARY[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=24, help="steps in each library (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=4, help="steps that are not timed (default: %(default)s)")
    benchmarks.option(parser)
    options = parser.parse_args()
    report = benchmarks.Report(__file__)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    declare_operators()
    images, labels = torch.randn(options.batch * options.steps, 3, 32, 32), torch.arange(options.batch * options.steps)
    rows = [{"images": image, "labels": label % 10} for image, label in zip(images, labels, strict=True)]
    for name, train in (("Lightning", under_lightning), ("Trainer of Hugging Face", under_the_trainer)):
        clock = train(rows, options.steps, options.batch, options.warm_up)
        count = options.steps - options.warm_up
        print(
            f"{name}: a step {1e3 * clock.steps / count:.1f} ms, of which the callback "
            f"{1e3 * clock.inside / count:.2f} ms: it adds {clock.ratio():.2%}"
        )
        report.ratio(f"what the callback adds to a step, {name}", 100 * clock.ratio(), at_most=2, unit="%")
    report.write(options.json)


if __name__ == "__main__":
    main()

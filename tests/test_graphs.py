"""A recorded step: equal to the loop that executes Python, over all methods, across a resume; and when it is not
recorded.
"""

from contextlib import suppress
from functools import partial

import pytest
import torch
from tape import Tape
from test_training import CONFIG, DATA, TASK, ByAvaGrad, Halving, images, small_net
from torch import nn

from lab.experiments.precision import few_bits
from lab.experiments.precision import weights as precision
from lab.experiments.sharing import images as sharing
from lab.experiments.sparsity import pruning
from lab.models import ResNet, swrn
from lab.training import Classification, Method, Stopped, Trainer, sgd
from lab.training import cuda_graph as graphs
from lab.training.cuda_graph import WARM_UP, Step, Watch

LONG = CONFIG | {"epochs": 2, "finetune_epochs": 1, "cutout": 8}
LONG_TASK = Classification((images(51), images(8)), LONG)  # six steps an epoch


class Noisy(Method):
    """Two optimizers, one of which keeps its rate."""

    def optimizers(self, net, training):
        first, *rest = net.parameters()
        adam = torch.optim.AdamW([{"params": [first], "scheduled": False}], lr=1e-3, fused=True)
        return [sgd([{"params": rest, "weight_decay": 1e-3}], training), adam]


def methods():
    """Everything that the issue names: network, method, and how near a replay is to the loop."""

    def pruned(name, **options):
        config = pruning.method_config(name, {"lr_s": 0.1}, **options)

        def method():
            method = pruning.method(config)
            if name == "cs":
                method.filmed = LONG["epochs"]
            return method

        return method

    def quantised(name, **options):
        config = precision.run("quick", name, **options).config["method"]
        return lambda: few_bits.method(config, 0)

    small, exact = partial(ResNet, 1), 0.0
    return {
        "dense": (small, Method, exact),
        "dropout": (
            small_net,
            Noisy,
            1e-6,
        ),  # AdamW multiplies rate and decay in float64, the rate in a tensor is float32
        "projecting": (small_net, Halving, exact),
        "CS": (small, pruned("cs", s_init=-0.02), exact),
        "GMP": (small, pruned("gmp", target=0.5), exact),
        "MP": (small, pruned("mp", target=0.5), exact),
        # the vector units of some processors round fused Adam's rate in a tensor otherwise than a number
        "SMOL": (small, quantised("smol", **{"lambda": 1e-5, "zero": True}), 1e-5),
        "SLB": (small, quantised("slb", bits=2), exact),
        "LSQ": (small, quantised("lsq", bits=2), exact),
        "sharing": (lambda: swrn(16, 1, 2, dropout=0.3), lambda: sharing.Sharing(1e-3, 1.0, 2), exact),
        "AvaGrad": (
            small,
            ByAvaGrad,
            1e-4,
        ),  # a scale in a tensor is multiplied in before the division, a number after it
    }


@pytest.fixture(autouse=True)
def fused_adam(monkeypatch):
    """A recorded Adam is the fused one; the loop it is compared with takes it too."""
    monkeypatch.setattr(torch.optim, "Adam", partial(torch.optim.Adam, fused=True))


def trainer(make, method, tapes=None, task=LONG_TASK, config=LONG, **options):
    torch.manual_seed(3)

    def record(device):
        if tapes is None:
            return None

        def recorded(body):
            tapes.append(Tape())
            return tapes[-1](body)

        return recorded

    return Trainer("a-run", make(), method(), config, task, record=record, **options)


def assert_alike(got, want, tolerance):
    other = want.net.state_dict()
    for name, value in got.net.state_dict().items():
        torch.testing.assert_close(
            value, other[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
    if tolerance == 0:
        assert got.curve == want.curve
    for one, two in zip(got.moments, want.moments, strict=True):
        assert str(one) == str(two)


# -- equal to the loop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS := methods())
def test_a_recorded_step_gives_what_the_loop_gives(name, recwarn):
    make, method, tolerance = METHODS[name]
    loop = trainer(make, method)
    loop.run()
    tapes = []
    recorded = trainer(make, method, tapes)
    recorded.run()
    steps = LONG_TASK.steps
    assert [tape.replays for tape in tapes] == [2 * steps - WARM_UP, steps - WARM_UP]  # search, then fine-tuning
    assert_alike(recorded, loop, tolerance)
    assert not [w for w in recwarn if "no graph can hold" in str(w.message)]


@pytest.mark.parametrize(
    ("name", "moment"), [("dropout", 2), ("CS", 9), ("GMP", 8), ("SMOL", 14), ("sharing", 4), ("AvaGrad", 7)]
)
def test_it_goes_on_from_a_checkpoint_on_either_kind_of_device(name, moment, tmp_path):
    make, method, tolerance = METHODS[name]
    loop = trainer(make, method)
    loop.run()
    for first, second in (([], []), ([], None), (None, [])):  # recorded or not, before and after
        path, calls = tmp_path / f"{first}{second}.pt", []

        def stop(calls=calls):
            calls.append(1)
            return len(calls) == moment

        with suppress(Stopped):
            trainer(make, method, first, checkpoint=path, stop=stop, every=1e9).run()
        assert path.exists()
        rest = trainer(make, method, second, checkpoint=path, every=1e9)
        rest.run()
        assert_alike(rest, loop, tolerance)


def test_two_runs_side_by_side_give_what_each_gives_alone():
    make, method, _ = METHODS["SMOL"]
    alone = [trainer(make, method, seed=seed) for seed in (0, 1)]
    for one in alone:
        one.run()
    together = [trainer(make, method, [], seed=seed) for seed in (0, 1)]
    for _ in range(LONG["epochs"]):  # in turns, in one process: chance is seeded before each replay
        for one in together:
            one._rest_of_epoch()
    for one, two in zip(together, alone, strict=True):
        assert [row["loss"] for row in one.curve] == [row["loss"] for row in two.curve[: LONG["epochs"]]]


# -- what is not recorded ---------------------------------------------------------------------------------------------


def test_a_method_that_reads_a_value_runs_as_it_is_and_the_reason_is_said():
    class Reading(Method):
        def penalty(self, net):
            return 1e-3 * float(net.linear.weight.detach().abs().sum()) * net.linear.weight.square().sum()

        def fix(self, net):
            return net

    tapes = []
    one = trainer(partial(ResNet, 1), Reading, tapes)
    with pytest.warns(UserWarning, match=r"no graph can hold it: it waits for the device \(_local_scalar_dense\)"):
        one.run()
    loop = trainer(partial(ResNet, 1), Reading)
    loop.run()
    assert_alike(one, loop, 0.0)
    assert len(tapes) == 1  # fine-tuning has no penalty, and is recorded


def test_an_optimizer_that_counts_on_the_host_runs_as_it_is():
    class Adaptive(Method):
        def optimizers(self, net, training):
            return [torch.optim.RMSprop(net.parameters(), lr=1e-3)]

    one = trainer(partial(ResNet, 1), Adaptive, [])
    with pytest.warns(UserWarning, match="RMSprop counts its steps on the host"):
        one.run()
    loop = trainer(partial(ResNet, 1), Adaptive)
    loop.run()
    assert_alike(one, loop, 0.0)


def test_a_recording_that_fails_leaves_the_loop_and_a_full_device_is_the_runners_business():
    def failing(error):
        def record(body):
            raise error

        return Trainer("a-run", small_net(), Halving(), CONFIG, TASK, record=lambda device: record)

    one = failing(RuntimeError("operation not permitted when stream is capturing\nCompile with ..."))
    with pytest.warns(UserWarning, match="operation not permitted when stream is capturing$"):
        one.run()
    loop = Trainer("a-run", small_net(), Halving(), CONFIG, TASK)
    loop.run()
    assert_alike(one, loop, 0.0)
    with pytest.raises(torch.OutOfMemoryError):
        failing(torch.OutOfMemoryError("CUDA out of memory")).run()


def test_a_batch_of_another_shape_is_computed_as_it_is():
    seen, total = [], torch.zeros(())

    def body(batch):
        seen.append(len(batch["x"]))
        total.add_(batch["x"].sum())

    weight = nn.Parameter(torch.ones(1))
    step = Step(body, [torch.optim.SGD([weight], lr=0.1)], Tape())
    for size in (3, 3, 3, 3, 3, 2, 3):
        step({"x": torch.ones(size)})
    assert float(total) == 20
    assert seen == [3, 3, 3, 3, 2]  # three to warm up, one to record, the short one: Python was not asked otherwise


def test_batches_with_something_else_than_tensors_are_not_recorded():
    total = torch.zeros(())
    step = Step(lambda batch: total.add_(batch[0] * batch[1]), [], Tape())
    for number in range(3):
        step((torch.ones(()), number))
    with pytest.warns(UserWarning, match="something else than tensors"):
        step((torch.ones(()), 3))
    for number in (4, 5):
        step((torch.ones(()), number))
    assert float(total) == 15


def test_a_task_that_replaces_its_batches_is_not_asked_for_draws():
    class Same(Classification):
        def batches(self, seed, epoch, start):
            return ((x, torch.zeros_like(y)) for x, y in super().batches(seed, epoch, start))

    task = Same(DATA, CONFIG)
    one, loop = (trainer(small_net, Halving, tapes, task, CONFIG) for tapes in ([], None))
    one.run()
    loop.run()
    assert_alike(one, loop, 0.0)
    other = trainer(small_net, Halving, [], TASK, CONFIG)
    other.run()
    assert other.curve != one.curve


def test_rates_are_written_into_their_tensors_where_they_change():
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    step = Step(lambda batch: None, [optimizer], Tape())
    place = optimizer.param_groups[0]["lr"]
    step.rates([0.25])
    assert optimizer.param_groups[0]["lr"] is place
    assert float(place) == 0.25


def test_no_graph_on_a_cpu_and_none_where_told(monkeypatch):
    assert graphs.recorder(torch.device("cpu")) is None
    assert graphs.recorder(torch.device("cuda")) is graphs.cuda_graph
    monkeypatch.setenv("LAB_EAGER", "1")
    assert graphs.recorder(torch.device("cuda")) is None


def test_what_reads_back_is_noticed():
    x = torch.ones(3)
    for read in (
        lambda: float(x.sum()),
        lambda: x[x > 0],
        lambda: x.nonzero(),
        lambda: torch.linalg.solve(torch.eye(3), x),
    ):
        with Watch() as watch:
            read()
        assert watch.reads
    with Watch() as watch:
        x[torch.tensor([0, 1])] + 1
    assert not watch.reads

"""What only a GPU can show: a step as a CUDA graph gives what the same device gives kernel by kernel."""

from contextlib import suppress

import pytest
import torch
from test_graphs import LONG, LONG_TASK, methods
from test_training import images

from lab.training import Classification, Stopped, Trainer
from lab.training import cuda_graph as graphs

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device: a step as a graph", allow_module_level=True)  # one line for all

pytestmark = pytest.mark.cuda
METHODS = methods()
NEAR = 1e-3
"""Relative; sums on a GPU change their order, and three short epochs carry that on."""


def run(name, graph, seed=0, **options):
    torch.manual_seed(3)
    make, method, _ = METHODS[name]
    data = images(51).to("cuda"), images(8).to("cuda")
    record = graphs.recorder if graph else lambda device: None
    return Trainer("a-run", make(), method(), LONG, Classification(data, LONG), seed=seed, record=record, **options)


def losses(one):
    return [row["loss"] for row in one.curve]


@pytest.mark.parametrize("name", METHODS)
def test_a_graph_gives_what_the_same_kernels_give_one_by_one(name):
    loop, graph = run(name, False), run(name, True)
    loop.run()
    graph.run()
    assert graph._descent.replay is not None
    assert losses(graph) == pytest.approx(losses(loop), rel=NEAR)


def test_seeding_between_two_replays_decides_what_they_draw():
    place = torch.zeros(1000, device="cuda")
    with graphs.own_stream(place.device):
        replay = graphs.cuda_graph(lambda: place.copy_(torch.rand_like(place)))
        for seed in (7, 8, 7):
            torch.manual_seed(seed)
            want = torch.rand_like(place)
            torch.manual_seed(seed)
            replay()
            assert torch.equal(place, want)


@pytest.mark.parametrize("name", ["dropout", "SMOL", "CS"])
def test_a_graphed_run_goes_on_from_its_checkpoint(name, tmp_path):
    straight = run(name, True)
    straight.run()
    calls = []

    def stop():
        calls.append(1)
        return len(calls) == 8

    with suppress(Stopped):
        run(name, True, checkpoint=tmp_path / "c.pt", stop=stop, every=1e9).run()
    rest = run(name, True, checkpoint=tmp_path / "c.pt", every=1e9)
    rest.run()
    assert losses(rest) == pytest.approx(losses(straight), rel=NEAR)


def test_two_graphs_on_two_streams_give_what_each_gives_alone():
    alone = [run("SMOL", True, seed=seed) for seed in (0, 1)]
    for one in alone:
        one.run()
    beside = [run("SMOL", True, seed=seed) for seed in (0, 1)]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    epochs = [one.steps_of_epoch() for one in beside]
    for _ in range(LONG_TASK.steps + 1):
        for epoch, stream in zip(epochs, streams, strict=True):
            with torch.cuda.stream(stream):
                next(epoch, None)
    for one, two in zip(beside, alone, strict=True):
        assert losses(one) == pytest.approx(losses(two)[:1], rel=NEAR)


def test_within_an_epoch_the_host_never_waits():
    torch.cuda.set_sync_debug_mode("default")
    one = run("CS", True)
    with graphs.own_stream(one.device):
        steps = one.steps_of_epoch()
        for _ in range(graphs.WARM_UP + 1):
            next(steps)
        try:
            torch.cuda.set_sync_debug_mode("error")
            next(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert one._descent.replay is not None

"""A training step as one CUDA graph: recorded once, then replayed, so that the host says "go" instead of starting
hundreds of kernels. See ``docs/decisions/0010-one-graph-a-step.md``.

A graph is blind: a replay reads the tensors it was recorded with and executes no Python. So what varies from step to
step lies in tensors at fixed places: the batch (or the draws it is made from), each group's learning rate, a
temperature. The host writes them between two replays. What a method computes on the host before a step
(:meth:`lab.training.Method.step`) stays outside.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from lab.utils.files import variable

Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what a step does to tensors, records it without doing it, and gives back what does it again."""

WARM_UP = 3
"""Steps before the recording, as they are: libraries choose their kernels in them, and optimizers make their state."""


def recorder(device: torch.device) -> Recorder | None:
    """What records a step on ``device``: CUDA's graphs, or None where there are none. ``LAB_EAGER=1`` says not to use
    them.
    """
    return cuda_graph if device.type == "cuda" and not variable("LAB_EAGER") else None


def cuda_graph(body: Callable[[], None]) -> Callable[[], None]:
    """Record on the current stream, which must not be the default one (:func:`own_stream`)."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        body()
    return graph.replay


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Everything inside runs on a CUDA stream of its own, after what came before it; on a CPU nothing changes."""
    if device.type != "cuda":
        yield
        return
    outer, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(outer)
    with torch.cuda.stream(own):
        yield
    outer.wait_stream(own)


class Watch(TorchDispatchMode):
    """Notes where Python asks a tensor for its values, or for a shape that depends on them: a GPU would keep it
    waiting.

    Attributes:
        reads: names of these operations, in order. Empty for a step that a graph can hold.
    """

    SYNCHRONISING = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "unique",
        "is_nonzero",
        "_linalg_check_errors",
    )

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        index = args[1] if name in ("index", "index_put_") else ()
        masked = any(i is not None and i.dtype == torch.bool for i in index)
        result = func(*args, **(kwargs or {}))
        crossed = name in ("_to_copy", "copy_") and {args[0].device.type, result.device.type} > {"cpu"}
        if name.startswith(self.SYNCHRONISING) or masked or crossed:
            self.reads.append(name)
        return result


class Step:
    """``body(batch)``, step after step: as it is without a recorder, else recorded after :data:`WARM_UP` steps and
    replayed.

    Args:
        body: one step on the device. It must do the same to the same tensors whenever it is called.
        optimizers: those that it calls. Their rates are set by :meth:`rates`, never by hand.
        record: see :func:`recorder`.

    What a graph cannot hold goes on kernel by kernel, and a warning says why, once: an optimizer that counts its steps
    on the host, an operation that reads a value back, a batch with something else than tensors, a recording that fails.
    A batch of other shapes than the recorded one, such as a short last one, is computed as it is.
    """

    def __init__(self, body: Callable[[Any], None], optimizers: Sequence[Optimizer], record: Recorder | None) -> None:
        self.body, self.record, self.calls = body, record, 0
        self.groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.replay: Callable[[], None] | None = None
        self._places: list[Tensor] = []
        self._form: tuple[TreeSpec, list[Any]] | None = None
        self._rates: list[float] = []
        if record and (reasons := [reason for reason in map(_prepare, optimizers) if reason]):
            self._give_up(reasons[0])
        for group in self.groups if self.record else ():
            group["lr"] = torch.full((), float(group["lr"]), device=group["params"][0].device)

    def rates(self, rates: list[float]) -> None:
        """Learning rates, one a group. A graph finds them in tensors, which are written where one changes."""
        if self.record and rates == self._rates:
            return
        for group, rate in zip(self.groups, rates, strict=True):
            if self.record:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._rates = rates

    def __call__(self, batch: Any) -> None:
        self.calls += 1
        if not self.record or self.calls < WARM_UP:
            self.body(batch)
        elif self.calls == WARM_UP:
            with Watch() as watch:
                self.body(batch)
            if watch.reads:
                self._give_up(f"it waits for the device ({', '.join(sorted(set(watch.reads)))})")
        else:
            self._replay_or_do(batch)

    def _replay_or_do(self, batch: Any) -> None:
        inputs, spec = tree_flatten(batch)
        form = spec, [getattr(each, "shape", None) for each in inputs]
        if self.replay is None:
            self._recording(inputs, form)
        if self.replay is None or form != self._form:
            self.body(batch)
        else:
            torch._foreach_copy_(self._places, inputs)
            self.replay()

    def _recording(self, inputs: list[Any], form: tuple[TreeSpec, list[Any]]) -> None:
        assert self.record is not None
        if None in form[1]:
            self._give_up("its batches hold something else than tensors")
            return
        self._places, self._form = [each.clone() for each in inputs], form
        batch = tree_unflatten(self._places, form[0])
        try:
            self.replay = self.record(lambda: self.body(batch))
        except torch.OutOfMemoryError:
            raise  # fewer runs at once may fit: the runner's business
        except RuntimeError as error:
            self._give_up(str(error).strip().splitlines()[0])

    def _give_up(self, reason: str) -> None:
        warnings.warn(f"a step's kernels are started one by one, for no graph can hold it: {reason}", stacklevel=4)
        self.record, self._rates = None, []
        for group in self.groups:
            group["lr"] = float(group["lr"])


def _prepare(optimizer: Optimizer) -> str | None:
    """Make the optimizer read its rate, and count its steps, on the device; or say why that is not possible."""
    torchs = isinstance(optimizer, SGD | Adam)  # AdamW is an Adam
    for group in optimizer.param_groups:
        if torchs:  # one kernel, and the only form of SGD that reads a rate from a tensor
            group |= {"fused": True, "foreach": False}
            if "capturable" in group:
                group["capturable"] = group["params"][0].is_cuda
        elif not group.get("capturable"):
            return f"{type(optimizer).__name__} counts its steps on the host"
    return None

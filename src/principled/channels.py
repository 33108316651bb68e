"""What of a network can be taken out as a whole: channels with everything that writes to them, hidden units, heads.

torch-pruning follows the network on an example and says which rows of which weights hang together, through
normalisation, additions, concatenation, flattening and attention; here they become *units*, the smallest things that
can go without the rest noticing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Conv = nn.modules.conv._ConvNd
ConvTransposed = nn.modules.conv._ConvTransposeNd
Norm = nn.modules.batchnorm._NormBase
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
"""What attention modules call the number of their heads."""
WIDTHS = ("all_head_size", "attn_dim", "inner_dim")
"""What they call heads times a head's width."""


@dataclass(frozen=True)
class Stream:
    """The channels that one layer writes, as units that go together.

    Attributes:
        root: the layer's name.
        units: ``(channels,)`` int64, the unit of each of its channels, from 0.
        writers: ``{parameter: (rows,) int64}``: which unit each row of each parameter that writes the stream belongs
            to, -1 for a row that is not of this stream.
        attention: name of the attention module whose heads the units are, or None.
    """

    root: str
    units: Tensor
    writers: dict[str, Tensor]
    attention: str | None

    @property
    def count(self) -> int:
        """Number of units."""
        return int(self.units.max()) + 1


def run(net: nn.Module, example: Any) -> Any:
    """``net`` on an example: a tensor, a tuple of arguments, or a dict of named ones."""
    if isinstance(example, Mapping):
        return net(**example)
    return net(*example) if isinstance(example, tuple) else net(example)


def _devices(tensors: Any) -> set[str]:
    return {str(tensor.device) for tensor in tree_leaves(tensors) if isinstance(tensor, Tensor)}


def rows_of(module: nn.Module, value: Tensor) -> Tensor:
    """A writer's parameter with what it writes along its first axis."""
    return value.transpose(0, 1) if isinstance(module, ConvTransposed) and value.ndim > 1 else value


class Channels:
    """The streams of a network, and how units leave it.

    Args:
        net: changed in place by :meth:`remove`; all of its parameters must require gradients, which torch-pruning
            follows.
        example: an input as the network takes it: a tensor, a tuple, or a dict.

    Raises:
        ValueError: torch-pruning is not installed; network and example on more than one device.
    """

    def __init__(self, net: nn.Module, example: Any) -> None:
        try:
            import torch_pruning as tp
        except ImportError:
            raise ValueError("taking channels out needs torch-pruning: pip install torch-pruning==1.6.1") from None
        of_net, of_example = _devices(net.state_dict()), _devices(example)
        if len(of_net | of_example) > 1:
            raise ValueError(
                f"the network is on {', '.join(sorted(of_net))} and the example on {', '.join(sorted(of_example))}: "
                "move both to one device"
            )
        self.net, self._names = net, {module: name for name, module in net.named_modules()}
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore", UserWarning)  # of parameters that no layer owns: their streams stay whole
            self._graph = tp.DependencyGraph().build_dependency(
                net, example_inputs=dict(example) if isinstance(example, Mapping) else example
            )

    def streams(self) -> list[Stream]:
        """All that can lose units, in the order of the layers that write them."""
        streams, done = [], set[nn.Module]()
        for module in [m for m in self.net.modules() if isinstance(m, Conv | nn.Linear)]:
            if module in done or module not in self._graph.module2node:
                continue
            group = self._group(module, list(range(self._graph.get_out_channels(module))))
            done |= {d.target.module for d, _ in group if self._writes(d)}
            if (stream := self._stream(module, group)) is not None:
                streams.append(stream)
        return streams

    def remove(self, stream: Stream, dead: Tensor) -> None:
        """Take out the units that ``dead`` ``(units,)`` marks, but for one if it marks all."""
        dead = dead.clone()
        if bool(dead.all()):
            dead[0] = False
        module = self.net.get_submodule(stream.root)
        group = self._group(module, torch.nonzero(dead[stream.units]).flatten().tolist())
        if not dead.any() or not self._graph.check_pruning_group(group):
            return
        group.prune()
        if stream.attention is not None:
            attention, left = self.net.get_submodule(stream.attention), int((~dead).sum())
            for name in (*HEADS, *WIDTHS):
                if isinstance(value := getattr(attention, name, None), int):
                    setattr(attention, name, value * left // len(dead))

    def _group(self, module: nn.Module, channels: list[int]) -> Any:
        return self._graph.get_pruning_group(
            module, self._graph.get_pruner_of_module(module).prune_out_channels, idxs=channels
        )

    def _writes(self, dependency: Any) -> bool:
        """Whether a dependency takes out what its layer puts out, and not what it takes in."""
        module = dependency.target.module
        if not isinstance(module, Conv | nn.Linear | Norm):
            return False
        return bool(dependency.handler == self._graph.get_pruner_of_module(module).prune_out_channels)

    def _stream(self, root: nn.Module, group: Any) -> Stream | None:
        """The units of a group of dependencies; None if it can not lose any: an output, or something that mixes
        channels, such as LayerNorm, reads it.
        """
        channels, divisions, read = self._graph.get_out_channels(root), 1, False
        writing = []
        for item in group:
            module, writes = item.dep.target.module, self._writes(item.dep)
            known = isinstance(module, Conv | nn.Linear | Norm | nn.PReLU)
            if isinstance(module, nn.Parameter) or (not known and any(True for _ in module.parameters())):
                return None
            read |= isinstance(module, Conv | nn.Linear) and not writes
            if isinstance(module, Conv) and 1 < module.groups == module.out_channels:
                if module.in_channels != module.out_channels:  # torch-pruning would take it for a depthwise one
                    return None
            elif isinstance(module, Conv):
                divisions = math.lcm(divisions, module.groups)  # each division loses the same channels
            if writes:
                writing.append((module, torch.tensor(item.idxs), torch.tensor(item.root_idxs)))
        if not read or channels % divisions or channels == divisions:
            return None
        units = torch.arange(channels) % (channels // divisions)
        attention = self._attention([module for module, _, _ in writing])
        if attention is not None:
            width = channels if len(writing) > 1 else channels // 3  # queries, keys and values: three layers, or one
            heads = next(getattr(attention, name) for name in HEADS if hasattr(attention, name))
            if channels % width or width % heads or any(len(rows) != channels for _, rows, _ in writing):
                return None
            units = torch.arange(channels) % width // (width // heads)
        writers = {}
        for module, rows, of_root in writing:
            for leaf, value in module.named_parameters(recurse=False):
                writers[f"{self._names[module]}.{leaf}"] = ids = torch.full((len(rows_of(module, value)),), -1)
                ids[rows] = units[of_root]
        return Stream(self._names[root], units, writers, None if attention is None else self._names[attention])

    def _attention(self, modules: list[nn.Module]) -> nn.Module | None:
        """The attention module whose queries, keys and values these layers are."""
        if len(modules) not in (1, 3) or not all(isinstance(module, nn.Linear) for module in modules):
            return None
        parents = {self._names[module].rpartition(".")[0] for module in modules}
        parent = self.net.get_submodule(parents.pop())
        return parent if not parents and any(hasattr(parent, name) for name in HEADS) else None

"""A relaxation's own variables: precise whatever the network's dtype, and saved with the options that give them their
meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import reduce
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from .relax import Relaxation


def variable_dtype(weights: Iterable[Tensor]) -> torch.dtype:
    """float32, or float64 where a weight is: a step of 1e-3 is lost in bfloat16, whose spacing at 4.8 is 0.03."""
    return reduce(torch.promote_types, (weight.dtype for weight in weights), torch.float32)


def at_least_float32(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn``, what ``.to(...)`` or ``.half()`` do to each tensor of a module, but never to a dtype below float32."""

    def wide(tensor: Tensor) -> Tensor:
        """``fn`` of a tensor, without what it makes narrower than float32."""
        moved = fn(tensor)
        narrow = moved.is_floating_point() and torch.promote_types(moved.dtype, torch.float32) != moved.dtype
        return tensor.to(moved.device, torch.float32) if narrow else moved

    return wide


class OwnVariables(Relaxation):
    """A relaxation with variables of its own. They stay in float32 or wider, and are loaded only where they mean the
    same.

    Its ``state_dict`` holds :meth:`options` as ``_extra_state``, a uint8 tensor of JSON, so that whatever handles a
    ``state_dict`` as tensors goes on to work. A ``state_dict`` without it loads as before.
    """

    def options(self) -> dict[str, Any]:
        """What gives the saved numbers their meaning, in JSON's types; loading compares the keys that both
        sides have.
        """
        return {"relaxation": type(self).__name__, "weights": list(self.names)}

    def get_extra_state(self) -> Tensor:
        """:meth:`options` as a uint8 tensor."""
        return torch.frombuffer(bytearray(json.dumps(self.options()).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """``RuntimeError``, as torch has it, if the options in ``state`` are not this relaxation's."""
        saved, own = json.loads(bytes(state.tolist())), json.loads(json.dumps(self.options()))
        for key in own:
            if key in saved and saved[key] != own[key]:
                theirs, ours = saved[key], own[key]
                if isinstance(ours, list) and isinstance(theirs, list):
                    theirs, ours = next((a, b) for a, b in zip_longest(theirs, ours) if a != b)
                raise RuntimeError(
                    f"{type(self).__name__}: the state_dict was saved with {key} {theirs!r}, this network has "
                    f"{ours!r}: "
                    "build it alike, then load"
                )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        key = f"{prefix}_extra_state"
        if key in state_dict:
            self.set_extra_state(state_dict[key])  # before any tensor is written
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if key in missing_keys:  # saved before options were
            missing_keys.remove(key)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OwnVariables:
        super()._apply(at_least_float32(fn), recurse)  # type: ignore[no-untyped-call]
        return self

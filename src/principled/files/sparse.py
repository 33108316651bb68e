"""Reads the sparse networks of earlier versions: safetensors files with three forms of tensors
(``docs/decisions/0006``). What is written today: :func:`principled.files.save`.

* ``dense``: as it is;
* ``bitmap``: a bit for each weight, then the values that are not zero;
* ``gaps``: the number of zeros before each value, a byte each (255: so many zeros and no value), then the values.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

FORMAT = "principled-packed-1"
OWN = ("format", "layout", "digest")  # metadata of the format; the rest is the caller's


def state(path: Path | str) -> dict[str, Tensor]:
    """The network's tensors by name, as ``load_state_dict`` takes them, bit-equal to what was saved.

    Raises:
        ValueError: the file is missing, cut short, altered, or none of this format.
    """
    return _read(Path(path))[0]


def meta(path: Path | str) -> dict[str, str]:
    """What the file says of itself; it is checked in full, as by :func:`state`."""
    return _read(Path(path))[1]


def precisions(path: Path | str) -> dict[str, Tensor]:
    """None: such a file holds no quantised weight. It is checked in full, as by :func:`state`."""
    _read(Path(path))
    return {}


# -- the three forms ---------------------------------------------------------------------------------------------------


def _places(code: np.ndarray, count: int) -> np.ndarray:
    """The kept places among ``count``, from the zeros before each; ValueError if these are for another count."""
    reached = np.cumsum(np.where(code == 255, 255, code.astype(np.int64) + 1))
    end = int(reached[-1]) if len(reached) else 0
    if not 0 <= count - end < 255:
        raise ValueError("gaps that do not fit the shape")
    return reached[code < 255] - 1


def _dense(name: str, told: Any, stored: dict[str, Tensor]) -> Tensor:
    """Take ``name``'s parts out of ``stored`` and put its values in their places. ValueError if they do not fit."""
    shape = tuple(int(n) for n in told["shape"])
    count = math.prod(shape)
    side, values = stored.pop(f"{name}:{told['form']}").numpy(), stored.pop(f"{name}:values")
    if told["form"] == "gaps":
        places = _places(side, count)
    else:
        if len(side) != -(-count // 8):
            raise ValueError("a bitmap that does not fit the shape")
        places = np.flatnonzero(np.unpackbits(side, count=count))
    if len(places) != len(values):
        raise ValueError("as many values as places are needed")
    flat = torch.zeros(count, dtype=values.dtype)
    flat[torch.from_numpy(places)] = values
    return flat.view(shape)


# -- the file ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    content = path.read_bytes()
    try:
        stored = load_safetensors(content)
        start = 8 + int.from_bytes(content[:8], "little")
        told = json.loads(content[8:start]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as e:
        why = " ".join(str(e).split())[:80]
        raise ValueError(f"{path} is cut short, or no safetensors file ({why}): restore it from version control") from e
    if told.get("format") != FORMAT:
        stated = told.get("format", "none stated")
        raise ValueError(
            f"{path} is no packed network (format: {stated}, not {FORMAT}): principled.files.save makes one"
        )
    try:
        layout = json.loads(told["layout"])
        tied = {name: how["to"] for name, how in layout.items() if how["form"] == "tied"}
        tensors = {name: _dense(name, how, stored) for name, how in layout.items() if name not in tied}
        tensors |= stored
        text = {key: value for key, value in told.items() if key not in OWN}
        if told["digest"] != _digest(tensors, layout, text):
            raise ValueError("its digest differs")
        state = dict(sorted((tensors | {name: tensors[first] for name, first in tied.items()}).items()))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, MemoryError) as e:
        why = " ".join(str(e).split())[:80]
        raise ValueError(f"{path} was altered ({why}): restore it from version control") from e
    return state, text


def _digest(tensors: Mapping[str, Tensor], layout: Mapping[str, Any], told: Mapping[str, str]) -> str:
    """SHA-256 of what is unpacked (names, types, shapes, bytes, ties) and of what the file says about itself."""
    ties = {name: how["to"] for name, how in layout.items() if how["form"] == "tied"}
    digest = hashlib.sha256(_text([dict(told), ties]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(_text([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

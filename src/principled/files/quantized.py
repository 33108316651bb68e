"""Reads the quantised networks of earlier versions, in which each weight takes just its own number of bits. What is
written today: :func:`principled.files.save`.

Such a file is a safetensors file with four byte strings (``docs/decisions/0008``):

* ``payload``: the bits of all quantised weights, one after the other, nothing between them;
* ``map``: how many bits each weight has, entropy-coded with a library's coder;
* ``kept``: the tensors that are not quantised (normalisation, biases, shortcuts), compressed without loss;
* ``layout``: names, shapes, scales.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from principled.quantize import MAX_BITS, spacing

from .precision_map import decode_map, inflate

FORMAT = "principled-precisions-1"
PARTS = ("payload", "map", "kept", "layout")
MOST, LONGEST = 2**28, 2**24
"""Numbers in a network, and bytes of a layout, that a reader makes room for: far above what this book packs."""

_NAME, _SHAPE = {"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 8}
CHECK_LAYOUT = fastjsonschema.compile({
    "type": "object",
    "required": ["weights", "kept", "model", "options"],
    "properties": {
        "weights": {"type": "array", "minItems": 1, "items":
            {"items": [_NAME, _SHAPE, {"type": "number"}], "minItems": 3, "maxItems": 3}},
        "kept": {"type": "array", "items": {"items": [_NAME, _NAME, _SHAPE], "minItems": 3, "maxItems": 3}},
        "model": {"type": ["string", "null"]},
        "options": {"type": "object"},
    },
})  # fmt: skip


# -- bits -------------------------------------------------------------------------------------------------------------


def read_bits(data: bytes, widths: np.ndarray) -> np.ndarray:
    """Codes of ``widths[i]`` bits, the highest first; ``ValueError`` if the bytes are not as many as these ask for."""
    widths = widths.astype(np.int64)
    if len(data) != math.ceil(int(widths.sum()) / 8):
        raise ValueError(
            f"the payload has {len(data)} bytes where the precision map asks for {math.ceil(widths.sum() / 8)}"
        )
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    starts = np.cumsum(widths) - widths
    codes = np.zeros(len(widths), np.int64)
    for place in range(int(widths.max(initial=0))):
        has = widths > place
        codes[has] = (codes[has] << 1) | bits[starts[has] + place]
    return codes


def levels(codes: np.ndarray, p: np.ndarray, scale: float) -> Tensor:
    """The weights of these levels, numbered from the lowest, of ``p`` bits each."""
    bits = torch.from_numpy(p.astype(np.int64))
    odd = 2 * torch.from_numpy(codes) + 1 - (1 << bits)
    return torch.where(bits > 0, odd.double() * spacing(bits, torch.float64), 0.0).to(torch.float32) * scale


# -- tensors kept whole -----------------------------------------------------------------------------------------------


def _decompress(data: bytes, layout: list[list[Any]]) -> dict[str, Tensor]:
    entries = [(name, getattr(torch, dtype), shape) for name, dtype, shape in layout]
    sizes = {name: math.prod(shape) for name, _, shape in entries}
    total = sum(sizes[name] * dtype.itemsize for name, dtype, _ in entries)
    raw = np.frombuffer(zlib.decompressobj().decompress(data, total + 1), np.uint8)  # no more than is asked for
    found, first = {}, 0
    for width in sorted({dtype.itemsize for _, dtype, _ in entries}):
        same = [entry for entry in entries if entry[1].itemsize == width]
        count = sum(sizes[name] for name, _, _ in same)
        rows = raw[first : first + count * width].reshape(width, count).T.copy()
        first += count * width
        at = 0
        for name, dtype, shape in same:
            part = torch.from_numpy(rows[at : at + sizes[name]].copy())
            found[name] = part.flatten().view(dtype).reshape(shape)
            at += sizes[name]
    if first != len(raw):
        raise ValueError("bytes left over")
    return {name: found[name] for name, _, _ in entries}


# -- files ------------------------------------------------------------------------------------------------------------


def state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a packed file by name, as ``load_state_dict`` takes them; bit for bit.

    Raises:
        ValueError: the file is altered, short, or of another format or version.
    """
    layout, parts = _read(Path(path))
    precision = _precision(path, layout, parts)
    try:
        codes = read_bits(parts["payload"], np.concatenate([p.ravel() for p in precision.values()]))
        tensors, first = _decompress(parts["kept"], layout["kept"]), 0
        for name, shape, scale in layout["weights"]:
            count = math.prod(shape)
            tensors[name] = levels(codes[first : first + count], precision[name].ravel(), scale).reshape(shape)
            first += count
    except (ValueError, IndexError, TypeError, RuntimeError, zlib.error) as e:
        raise _contradiction(path, e) from None
    return tensors


def precisions(path: str | Path) -> dict[str, Tensor]:
    """``{name: int8 tensor}``: the bits of each weight, read from the file's map."""
    layout, parts = _read(Path(path))
    return {name: torch.from_numpy(p.astype(np.int8)) for name, p in _precision(path, layout, parts).items()}


def meta(path: str | Path) -> dict[str, str]:
    """What the file says of itself."""
    return dict(_seal(Path(path))["about"])


def is_packed(path: str | Path) -> bool:
    """Whether a file is of this format, by its head alone."""
    try:
        return str(_head(Path(path).read_bytes()).get("format", "")).startswith("principled-precisions")
    except (OSError, ValueError):
        return False


def _precision(path: str | Path, layout: dict[str, Any], parts: dict[str, bytes]) -> dict[str, np.ndarray]:
    shapes = {name: tuple(shape) for name, shape, _ in layout["weights"]}
    try:
        maps = decode_map(parts["map"], list(shapes.values()))
        if any(int(p.max(initial=0)) > MAX_BITS for p in maps):
            raise ValueError(f"a precision above {MAX_BITS} bits")
    except (ValueError, IndexError, ArithmeticError, EOFError, RuntimeError, lzma.LZMAError) as e:
        raise _contradiction(path, e) from None
    return dict(zip(shapes, maps, strict=True))


def _contradiction(path: str | Path, why: object) -> ValueError:
    return ValueError(f"{path} contradicts itself ({' '.join(str(why).split())[:120]}): make or fetch it again")


def _layout(path: Path, packed: bytes) -> dict[str, Any]:
    """The layout, if it is one: a digest says who made a file's parts agree, not that they meant well."""
    try:
        layout = json.loads(inflate(packed, LONGEST))
        CHECK_LAYOUT(layout)
        shapes = [shape for _, shape, _ in layout["weights"]] + [shape for _, _, shape in layout["kept"]]
        if any(not isinstance(getattr(torch, dtype, None), torch.dtype) for _, dtype, _ in layout["kept"]):
            raise ValueError("a type of tensor that there is not")
        if sum(map(math.prod, shapes)) > MOST:
            raise ValueError(f"more than {MOST:,} numbers")
    except (ValueError, EOFError, RecursionError, lzma.LZMAError, fastjsonschema.JsonSchemaValueException) as e:
        raise _contradiction(path, getattr(e, "message", e)) from None
    return dict(layout)


def _digest(parts: Mapping[str, bytes], about: Mapping[str, str]) -> str:
    seal = hashlib.sha256(json.dumps([FORMAT, dict(about)], sort_keys=True).encode())
    for name in PARTS:
        seal.update(len(parts[name]).to_bytes(8, "little") + parts[name])
    return seal.hexdigest()


def _head(data: bytes) -> dict[str, Any]:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return dict(json.loads(header.get("__metadata__", {}).get("principled", "{}")))


def _seal(path: Path) -> dict[str, Any]:
    _read(path)  # nothing in a file whose digest is wrong is told
    return _head(path.read_bytes())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Layout and byte strings of a file whose digest is right; nothing else in it is trusted before."""
    data = path.read_bytes()
    try:
        tensors = load_safetensors(data)
        seal = _head(data)
    except (SafetensorError, ValueError, RuntimeError) as e:  # RecursionError is a RuntimeError
        raise ValueError(f"{path} is damaged or short ({type(e).__name__}): make or fetch it again") from None
    if (version := seal.get("format")) != FORMAT:
        raise ValueError(
            f"{path} has format {version!r}, and this version of the book reads {FORMAT!r}: update the book"
        )
    parts = {name: tensors[name].numpy().tobytes() if name in tensors else b"" for name in PARTS}
    if _digest(parts, seal.get("about", {})) != seal.get("digest"):
        raise ValueError(f"{path} was altered: its content does not match its digest; make or fetch it again")
    return _layout(path, parts["layout"]), parts

"""A network with a precision for every weight as one file in which each weight takes just its own number of bits.

    sizes = pack("net.safetensors", fixed, model="resnet20")     fixed: Relaxed(net, FixedPrecision(...))
    net = unpack("net.safetensors", net)                         a copy of it, bit for bit the quantised network

The file is a safetensors file with four byte strings (``docs/decisions/0008``):

* ``payload``: the bits of all quantised weights, one after the other, nothing between them;
* ``map``: how many bits each weight has, entropy-coded with a library's coder;
* ``kept``: the tensors that are not quantised (normalisation, biases, shortcuts), compressed without loss;
* ``layout``: names, shapes, scales.

    python -m principled.files.quantized net.safetensors                prints what the file spends on what
"""

from __future__ import annotations

import copy
import hashlib
import json
import lzma
import math
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from principled import FixedPrecision, Relaxed
from principled.quantize import MAX_BITS, nearest_level, spacing

from .atomic import write_atomically
from .precision_map import decode_map, encode_map, inflate

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


@dataclass(frozen=True)
class Sizes:
    """What a packed file spends: bits of the quantised weights, bits of the map, bytes of the tensors kept whole."""

    weights: int
    """Quantised weights."""
    payload_bits: int
    """Sum of all precisions."""
    map_bits: int
    kept_bytes: int
    """Of the tensors that are not quantised, compressed."""
    kept_raw_bytes: int
    """The same tensors as they are in memory."""
    file_bytes: int

    @property
    def rest_bytes(self) -> int:
        """Names, shapes, scales, and what the container itself takes."""
        return self.file_bytes - math.ceil(self.payload_bits / 8) - self.map_bits // 8 - self.kept_bytes

    def __str__(self) -> str:
        per_weight = (self.payload_bits / self.weights, self.map_bits / self.weights)
        return (
            f"{self.file_bytes:,} bytes: {self.weights:,} weights of {per_weight[0]:.3f} bits "
            f"({math.ceil(self.payload_bits / 8):,} bytes), their map {per_weight[1]:.3f} bits each "
            f"({self.map_bits // 8:,} bytes), tensors kept whole {self.kept_bytes:,} bytes "
            f"(in memory {self.kept_raw_bytes:,}), the rest {self.rest_bytes:,} bytes"
        )


# -- bits -------------------------------------------------------------------------------------------------------------


def write_bits(codes: np.ndarray, widths: np.ndarray) -> bytes:
    """``codes[i]`` in ``widths[i]`` bits, highest first, one after the other; the last byte is filled with zeros."""
    widths = widths.astype(np.int64)
    starts = np.cumsum(widths) - widths
    bits = np.zeros(int(widths.sum()), np.uint8)
    for place in range(int(widths.max(initial=0))):  # a pass for each bit of the widest code, not for each code
        has = widths > place
        bits[starts[has] + place] = (codes[has] >> (widths[has] - 1 - place)) & 1
    return np.packbits(bits).tobytes()


def read_bits(data: bytes, widths: np.ndarray) -> np.ndarray:
    """The codes that :func:`write_bits` wrote; ``ValueError`` where the bytes are not as many as the widths ask for."""
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


def level_codes(name: str, weight: Tensor, p: Tensor, scale: float) -> np.ndarray:
    """Number of each weight's level, 0 to 2**p - 1 from the lowest; refuses weights that are on no level of p bits."""
    if weight.dtype != torch.float32:
        raise ValueError(f"{name} is {weight.dtype}: pack takes float32 networks; call net.float() first")
    w = weight.detach().cpu() / scale
    p = p.detach().cpu()
    if p.shape != w.shape:
        raise ValueError(f"{name}: precisions of shape {tuple(p.shape)} for weights of {tuple(w.shape)}")
    if p.dtype.is_floating_point or int(p.min()) < 0 or int(p.max()) > MAX_BITS:
        raise ValueError(f"{name}: precisions must be whole numbers from 0 to {MAX_BITS}")
    if not torch.equal(nearest_level(w, p) * scale, weight.detach().cpu()):  # NaN is equal to nothing
        raise ValueError(f"{name} has weights that are on no level of their precision: pack the hardened network")
    odd = (w.double() / spacing(p, torch.float64)).round().to(torch.int64)  # rounds away what dividing by a scale did
    return torch.where(p > 0, (odd + (1 << p.to(torch.int64)) - 1) // 2, 0).flatten().numpy()


def levels(codes: np.ndarray, p: np.ndarray, scale: float) -> Tensor:
    """Inverse of :func:`level_codes`."""
    bits = torch.from_numpy(p.astype(np.int64))
    odd = 2 * torch.from_numpy(codes) + 1 - (1 << bits)
    return torch.where(bits > 0, odd.double() * spacing(bits, torch.float64), 0.0).to(torch.float32) * scale


# -- tensors kept whole -----------------------------------------------------------------------------------------------


def _compress(tensors: Mapping[str, Tensor]) -> bytes:
    """The tensors' bytes, first bytes first, so that signs and exponents lie beside each other."""
    planes = []
    for tensor in tensors.values():
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().reshape(-1, tensor.element_size())
        planes.append(raw)
    widths = sorted({raw.shape[1] for raw in planes})
    grouped = [np.concatenate([raw for raw in planes if raw.shape[1] == width]).T.tobytes() for width in widths]
    return zlib.compress(b"".join(grouped), 9)


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


def pack(
    path: str | Path,
    net: nn.Module,
    precision: Mapping[str, Tensor] | None = None,
    scale: Mapping[str, float] | None = None,
    *,
    model: str | None = None,
    about: Mapping[str, str] | None = None,
) -> Sizes:
    """Write a quantised network, atomically, and say what its bits are spent on.

    Args:
        path: the file to write.
        net: a plain network that holds quantised weights (``Quantised.net``), with ``precision`` and ``scale``; or a
            network relaxed with :class:`principled.FixedPrecision`, which knows both.
        precision: ``{name: integer tensor of the weight's shape}``; every other tensor is kept whole.
        scale: ``{name: number}``; default 1.
        model: what the network is called, for whoever reads the file.
        about: text that travels with the file, such as the run it comes from.

    Raises:
        ValueError: weights that are on no level of their precision, a precision map that does not fit.
    """
    if isinstance(net, Relaxed):
        *_, fixed = net.relaxations
        if not isinstance(fixed, FixedPrecision):
            raise ValueError(f"cannot pack a {type(fixed).__name__} network: fix its precisions first (fix_precision)")
        net, precision, scale = net.harden(), fixed.precision(), fixed.scales()
    if not precision:
        raise ValueError("pack needs the precision of each quantised weight: {name: integer tensor}")
    state = net.state_dict()
    if unknown := [name for name in precision if name not in state]:
        raise ValueError(f"the network has no weight {unknown[0]!r} for its precision")
    factors = {name: float((scale or {}).get(name, 1.0)) for name in precision}
    widths = {name: p.detach().cpu().to(torch.int64).numpy() for name, p in precision.items()}
    codes = [level_codes(name, state[name], p, factors[name]) for name, p in precision.items()]
    kept = {name: tensor for name, tensor in state.items() if name not in precision}
    layout = {
        "weights": [[name, list(p.shape), factors[name]] for name, p in precision.items()],
        "kept": [[name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in kept.items()],
        "model": model,
        "options": {},
    }
    parts = {
        "payload": write_bits(np.concatenate(codes), np.concatenate([p.ravel() for p in widths.values()])),
        "map": encode_map(list(widths.values())),
        "kept": _compress(kept),
        "layout": lzma.compress(json.dumps(layout, separators=(",", ":")).encode(), format=lzma.FORMAT_ALONE),
    }
    seal = {"format": FORMAT, "digest": _digest(parts, about or {}), "about": dict(about or {})}
    metadata = {"principled": json.dumps(seal, sort_keys=True)}  # one entry: safetensors writes several in any order
    data = save_safetensors(
        {k: torch.frombuffer(bytearray(v), dtype=torch.uint8) for k, v in parts.items() if v}, metadata
    )
    write_atomically(Path(path), lambda file: file.write(data))
    return sizes(path)


def unpack(path: str | Path, net: nn.Module) -> nn.Module:
    """The network of a packed file, plain, its weights bit-equal to the quantised ones.

    Args:
        path: a file that :func:`pack` wrote.
        net: a network of the same kind, which is copied, not changed.

    Raises:
        ValueError: the file is altered, short, of another format or version, or does not fit the network.
    """
    net = copy.deepcopy(net)
    try:
        net.load_state_dict(state(path))
    except RuntimeError as e:
        raise ValueError(f"{path} does not fit a {type(net).__name__}: {' '.join(str(e).split())[:200]}") from None
    return net


def state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a packed file by name, as ``load_state_dict`` takes them; ValueError as of :func:`unpack`."""
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


def about(path: str | Path) -> dict[str, str]:
    """The text that travels with a packed file."""
    return dict(_seal(Path(path))["about"])


def is_packed(path: str | Path) -> bool:
    """Whether a file is of this format, by its head alone."""
    try:
        return str(_head(Path(path).read_bytes()).get("format", "")).startswith("principled-precisions")
    except (OSError, ValueError):
        return False


def sizes(path: str | Path) -> Sizes:
    """What a packed file spends on what."""
    layout, parts = _read(Path(path))
    precision = _precision(path, layout, parts)
    return Sizes(
        weights=sum(p.size for p in precision.values()),
        payload_bits=sum(int(p.sum()) for p in precision.values()),
        map_bits=8 * len(parts["map"]),
        kept_bytes=len(parts["kept"]),
        kept_raw_bytes=sum(getattr(torch, dtype).itemsize * math.prod(shape) for _, dtype, shape in layout["kept"]),
        file_bytes=Path(path).stat().st_size,
    )


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


if __name__ == "__main__":
    try:
        for argument in sys.argv[1:]:
            print(f"{argument}: {sizes(argument)}")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")

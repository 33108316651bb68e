"""``save``: a network as one small file, each tensor in the shortest of its forms, all under one entropy coder."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from principled import FixedPrecision, Folded, Relaxed
from principled.quantize import MAX_BITS, nearest_level
from principled.smol import Quantised

from .atomic import write_atomically
from .coder import Writer
from .container import seal
from .shapes import DTYPES, LOW_BITS, WORDS, Array, pack_bits
from .tables import Table, clusters
from .values import VALUES, rounded
from .write_forms import Part, Plan, base, bytes_bits, levels_plan, plans, whole_plan

Values = Literal["float32", "bfloat16", "int8"]


def save(
    path: str | Path,
    net: nn.Module | Quantised,
    *,
    values: Values = "float32",
    meta: Mapping[str, str] | None = None,
) -> Path:
    """Write a network to ``path``, atomically, as small as its tensors allow; equal networks give equal bytes.

    Args:
        path: the file; by custom ``NAME.principled``.
        net: any network. One that is relaxed with :class:`principled.FixedPrecision` is saved hardened, and its
            precisions are kept; so are those of what :func:`principled.train_smol` returns. Of every other network the
            file holds the ``state_dict``: harden a relaxed one first if that is what you mean. A plain network's
            precisions are found from its weights where their scale is a power of two and no other form is shorter.
        values: of the floating-point weights that are not quantised already. ``"float32"`` keeps each number as it is,
            whatever its type. ``"bfloat16"`` rounds float32 numbers to 8 bits of mantissa; ``"int8"`` those of two or
            more axes to whole numbers from -127 to 127 times a scale for each slice of the first axis (a filter), and
            leaves vectors as they are. :func:`principled.files.change` says what that does to the outputs.
        meta: what the file says of itself, text to text.

    A negative zero, which a mask makes of a negative weight, is kept as plain zero: its sign says nothing and would
    cost a bit. A tensor that occurs under several names (tied, or equal) is written once. A folded network's program
    travels along: :func:`principled.files.program` reads it.

    Raises:
        ValueError: a tensor that cannot be kept (its name and type), meta that is not text, quantised weights that are
            on no level of their precision, an unknown ``values``.
    """
    if values not in VALUES:
        raise ValueError(f"values is one of {', '.join(VALUES)}, not {values!r}")
    meta = dict(meta or {})
    if any(not isinstance(word, str) for pair in meta.items() for word in pair):
        raise ValueError(f"meta of {path} is text to text, {{'model': 'resnet20'}}: make each value a string")
    program = [list(step) for step in net.program.steps] if isinstance(net, Folded) else []
    content = _file(
        *_plans(net, values), {"meta": dict(sorted(meta.items()))} | ({"program": program} if program else {})
    )
    write_atomically(Path(path), lambda file: file.write(content))
    return Path(path)


# -- writing -----------------------------------------------------------------------------------------------------------


def _state(net: nn.Module | Quantised) -> tuple[dict[str, Any], Mapping[str, Tensor], Mapping[str, float]]:
    """Tensors by name, precisions and scales of those that are quantised."""
    if isinstance(net, Quantised):
        return net.net.state_dict(keep_vars=True), net.precision, net.scale
    if isinstance(net, Relaxed) and isinstance(last := list(net.relaxations)[-1], FixedPrecision):
        return net.harden().state_dict(keep_vars=True), last.precision(), last.scales()
    return net.state_dict(keep_vars=True), {}, {}


def _plans(net: nn.Module | Quantised, values: str) -> tuple[list[list[Any]], list[Plan | None], list[bytes]]:
    """Entries of the header, the plan of each (None: the blob, or nothing), and what is in the blob."""
    state, precision, scale = _state(net)
    if unknown := [name for name in precision if name not in state]:
        raise ValueError(f"the network has no weight {unknown[0]!r} for its precision")
    tensors = {name: _words(name, tensor) for name, tensor in state.items()}
    exact: dict[str, Plan] = {}
    for name, (words, dtype, shape) in tensors.items():
        if name in precision:
            exact[name] = _levels(name, state[name], precision[name], scale.get(name, 1.0))
        elif values != "float32" and dtype == "float32" and len(words):
            changed, steps = rounded(words.view(np.float32), shape, values)
            tensors[name] = (changed + np.float32(0)).view(np.uint32), dtype, shape  # again no negative zero
            if steps is not None:
                exact[name] = whole_plan(*steps, shape)
    bases: dict[str, int] = {}
    for words, dtype, _ in tensors.values():
        if dtype in LOW_BITS:
            bases[dtype] = min(bases.get(dtype, 2**31), base(words, dtype))
    entries: list[list[Any]] = []
    chosen: list[Plan | None] = []
    blob: list[bytes] = []
    known: dict[tuple[Any, ...], str] = {}
    for name, (words, dtype, shape) in tensors.items():
        raw = words.view(np.uint8)
        mark = (dtype, shape, zlib.crc32(raw.data))
        entries.append([name, dtype, list(shape)])
        first = known.setdefault(mark, name) if len(raw) > 8 else name
        if first != name and np.array_equal(words, tensors[first][0]):
            entries[-1] += ["same", {"as": first}]
            chosen.append(None)
            continue
        plan = _shortest(words, dtype, shape, bases, exact.get(name))
        chosen.append(plan)
        entries[-1] += ["bytes", {}] if plan is None else [plan.form, plan.args]
        blob += [raw.tobytes()] if plan is None else []
    return entries, chosen, blob


def _words(name: str, tensor: object) -> tuple[Array, str, tuple[int, ...]]:
    """A tensor's bits as whole numbers, in C order, without negative zeros; its type and shape."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} is a {type(tensor).__name__}, and a file holds tensors: leave it out of the state")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES or tensor.layout != torch.strided or tensor.is_meta:
        what = "on the meta device" if tensor.is_meta else f"{dtype}, {tensor.layout}"
        raise ValueError(f"{name} is {what}, which a file cannot keep: convert it first, such as to float32")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    size = plain.element_size()
    words = plain.reshape(-1).view(torch.uint8).numpy()
    words = words.view(WORDS[size]) if size in WORDS else words
    if tensor.dtype.is_floating_point and size > 1:
        negative = words == words.dtype.type(1 << (8 * size - 1))
        if negative.any():
            words = np.where(negative, words.dtype.type(0), words)
    return words, dtype, tuple(tensor.shape)


def _levels(name: str, weight: Tensor, p: Tensor, scale: float) -> Plan:
    """The plan of a weight at given precisions; refuses one that is on no level of them."""
    if weight.dtype != torch.float32:
        raise ValueError(f"{name} is {weight.dtype}: quantised weights are kept in float32; call net.float() first")
    w, p = weight.detach().cpu(), p.detach().cpu()
    if p.shape != w.shape:
        raise ValueError(f"{name}: precisions of shape {tuple(p.shape)} for weights of {tuple(w.shape)}")
    if p.dtype.is_floating_point or (p.numel() and not 0 <= int(p.min()) <= int(p.max()) <= MAX_BITS):
        raise ValueError(f"{name}: precisions must be whole numbers from 0 to {MAX_BITS}")
    if not torch.equal(nearest_level(w / scale, p) * scale, w):  # NaN is equal to nothing
        raise ValueError(f"{name} has weights that are on no level of their precision: save the hardened network")
    flat = np.where(w.numpy() == 0, np.float32(0), w.numpy()).ravel()
    return levels_plan(flat, p.to(torch.int64).numpy().ravel(), scale, tuple(w.shape))


def _shortest(
    words: Array, dtype: str, shape: tuple[int, ...], bases: Mapping[str, int], exact: Plan | None
) -> Plan | None:
    """The plan that takes least; None for the blob. One that was asked for is taken."""
    if exact is not None:
        return exact
    best, least = None, bytes_bits(words.view(np.uint8))
    for plan in plans(words, dtype, shape, dict(bases)):
        if (cost := plan.bits()) < least:
            best, least = plan, cost
    return best


def _file(entries: list[list[Any]], chosen: list[Plan | None], blob: list[bytes], said: dict[str, Any]) -> bytes:
    """The file: tables are made for all parts of a kind together, then everything is written in reading order."""
    parts = [part for plan in chosen if plan is not None for part in plan.parts]
    tables: list[Table] = []
    owners: dict[int, list[int]] = {}
    for kind in dict.fromkeys(part.kind for part in parts if part.arrays):
        own = [part for part in parts if part.kind == kind]
        arrays = [array for part in own for array in part.arrays]
        length = 1 + max(int(array.max(initial=0)) for array in arrays)
        counts = np.stack([np.bincount(array, minlength=length) for array in arrays])
        numbers, made = clusters(counts, own[0].width)
        numbers = [number if number < 0 else number + len(tables) for number in numbers]
        tables += made
        for part in own:
            owners[id(part)], numbers = numbers[: len(part.arrays)], numbers[len(part.arrays) :]
            part.put(owners[id(part)])
    writer = Writer()
    for part in parts:
        _write(part, owners.get(id(part), []), tables, writer)
    packed = zlib.compress(b"".join(blob), 9) if blob else b""
    header = said | {
        "tables": [[table.first, table.text] for table in tables],
        "tensors": entries,
        "blob": len(packed),
    }
    text = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    words, raw = writer.sections()
    return seal(text, words, raw + packed)


def _write(part: Part, numbers: list[int], tables: list[Table], writer: Writer) -> None:
    if not part.arrays:
        writer.raw(part.raw)
    for array, number in zip(part.arrays, numbers, strict=True):
        if number >= 0:
            writer.code(array, tables[number])
        else:
            assert part.width is not None
            writer.raw(pack_bits(array, part.width))

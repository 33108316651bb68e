"""A plain, possibly sparse network as one small safetensors file, and back, bit for bit.

Each tensor takes the smallest of three forms (``docs/decisions/0006``), what locates its values counted:

* ``dense``: as it is;
* ``bitmap``: a bit for each weight, then the values that are not zero;
* ``gaps``: the number of zeros before each value, a byte each (255: so many zeros and no value), then the values.

    python -m principled.files.sparse data/models/*.safetensors      prints what each file spends on what
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from .atomic import write_atomically

FORMAT = "principled-packed-1"
OWN = ("format", "layout", "digest")  # metadata that this module writes; the rest is the caller's
ENTRY = '"{}":{{"dtype":"F32","shape":[{}],"data_offsets":[1000000,1000000]}},'  # what a tensor costs in the header


@dataclass(frozen=True)
class Row:
    """One tensor of the network: where its bytes go."""

    name: str
    form: str
    weights: int
    nonzero: int
    values: int
    side: int


@dataclass(frozen=True)
class Sizes:
    """Bytes of a packed file: ``file`` = ``header`` + values and side information of all ``rows``.

    ``dense`` is what the same tensors take as an ordinary safetensors file.
    """

    file: int
    dense: int
    header: int
    rows: tuple[Row, ...]

    @property
    def share(self) -> float:
        """The packed file as a share of the dense one."""
        return self.file / self.dense

    def __str__(self) -> str:
        wide = max(len(row.name) for row in self.rows)
        lines = [f"{'tensor':{wide}}  form    weights  nonzero   values     side"]
        for r in self.rows:
            lines.append(f"{r.name:{wide}}  {r.form:6} {r.weights:8,} {r.nonzero:8,} {r.values:8,} {r.side:8,}")
        total = {key: sum(getattr(row, key) for row in self.rows) for key in ("weights", "nonzero", "values", "side")}
        lines.append(f"{'all':{wide}}         " + " ".join(f"{number:8,}" for number in total.values()))
        lines.append(
            f"file {self.file:,} bytes (header {self.header:,}, values {total['values']:,}, side information "
            f"{total['side']:,}): {self.share:.1%} of the dense file's {self.dense:,}"
        )
        return "\n".join(lines)


def pack(net: nn.Module, path: Path | str, metadata: Mapping[str, str] | None = None) -> Sizes:
    """Write ``net``'s parameters and buffers to ``path``, atomically; equal networks give equal bytes.

    A negative zero, which a mask makes of a negative weight, is kept as plain zero: its sign says nothing and would
    cost a bit. A weight that a network uses under several names (tied, folded) is written once.

    Args:
        net: a plain network (``relaxed.harden()``), of any dtype, on any device.
        path: the file.
        metadata: what the file says about itself (``run``, ``experiment``, ``model``, ``classes`` ...), text to text.

    Raises:
        ValueError: metadata that is not text or uses one of this format's own names; a file that cannot be written.
    """
    told = dict(metadata or {})
    if bad := [k for k, v in told.items() if k in OWN or not isinstance(v, str)]:
        raise ValueError(f"metadata {bad[0]!r} of {path}: give text, under a name other than {', '.join(OWN)}")
    tensors, tied = _content(net)
    stored: dict[str, Tensor] = {}
    layout: dict[str, Any] = {name: {"form": "tied", "to": first} for name, first in tied.items()}
    for name, tensor in tensors.items():
        form, parts = min(_forms(name, tensor), key=lambda choice: _cost(choice[1]))
        stored |= parts
        if form != "dense":
            layout[name] = {"form": form, "shape": list(tensor.shape)}
    told |= {"format": FORMAT, "digest": _digest(tensors, layout, told), "layout": _text(layout)}
    content = _in_order(save_safetensors(stored, told))
    write_atomically(Path(path), lambda file: file.write(content))
    return _sizes(len(content), tensors, stored, layout)


def unpack(path: Path | str) -> dict[str, Tensor]:
    """The network's tensors by name, as ``load_state_dict`` takes them, bit-equal to what was packed.

    Raises:
        ValueError: the file is missing, cut short, altered, or none of this format.
    """
    return _read(Path(path))[0]


def metadata(path: Path | str) -> dict[str, str]:
    """What the file says about itself; the file is checked in full, as by :func:`unpack`."""
    return _read(Path(path))[1]


def sizes(path: Path | str) -> Sizes:
    """What the file spends on what; the file is checked in full, as by :func:`unpack`."""
    return _read(Path(path))[2]


def load_into(net: nn.Module, path: Path | str) -> nn.Module:
    """Give ``net`` the packed tensors, in place, and return it. ValueError if they are those of another network."""
    try:
        net.load_state_dict(unpack(path))
    except RuntimeError as e:
        why = str(e).splitlines()[1].strip()[:160]
        raise ValueError(f"{path} holds another network than {type(net).__name__} ({why}): see its metadata") from e
    return net


# -- the three forms ---------------------------------------------------------------------------------------------------


def _content(net: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each distinct tensor once, by its first name, on the CPU, without negative zeros; other name to first name."""
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, tensor in net.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            tied[name] = first[id(tensor)]
            continue
        first[id(tensor)] = name
        plain = tensor.detach().cpu().contiguous()
        tensors[name] = plain.masked_fill(plain == 0, 0)
    return tensors, tied


def _forms(name: str, tensor: Tensor) -> Iterator[tuple[str, dict[str, Tensor]]]:
    yield "dense", {name: tensor}
    flat = tensor.flatten()
    kept = flat != 0
    if bool(kept.all()):
        return
    values = {f"{name}:values": flat[kept]}
    yield "bitmap", {f"{name}:bitmap": torch.from_numpy(np.packbits(kept.numpy()))} | values
    yield "gaps", {f"{name}:gaps": torch.from_numpy(_gaps(kept.numpy()))} | values


def _cost(parts: Mapping[str, Tensor]) -> int:
    """Bytes in the file, header included (to a few digits of an offset)."""
    dense = len(parts) == 1
    return sum(t.nbytes + len(ENTRY.format(name, t.numel())) for name, t in parts.items()) + (0 if dense else 60)


def _gaps(kept: np.ndarray) -> np.ndarray:
    """uint8: for each kept place the zeros before it, 255 standing for so many zeros and no value; then zeros at the
    end.
    """
    places = np.flatnonzero(kept)
    gaps = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(gaps // 255 + 1)
    rest = len(kept) - 1 - (places[-1] if len(places) else -1)
    code = np.full((ends[-1] if len(ends) else 0) + rest // 255, 255, np.uint8)
    code[ends - 1] = gaps % 255
    return code


def _places(code: np.ndarray, count: int) -> np.ndarray:
    """Inverse of :func:`_gaps`: the kept places among ``count``. ValueError if the code is of another length."""
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


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str], Sizes]:
    content = path.read_bytes()
    try:
        stored = load_safetensors(content)
        start = 8 + int.from_bytes(content[:8], "little")
        told = json.loads(content[8:start]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as e:
        why = " ".join(str(e).split())[:80]
        raise ValueError(f"{path} is cut short, or no safetensors file ({why}): restore it from version control") from e
    if told.get("format") != FORMAT:
        found = told.get("format", "none stated")
        raise ValueError(
            f"{path} is no packed network (format: {found}, not {FORMAT}): `principled.files.sparse.pack` writes those"
        )
    try:
        layout = json.loads(told["layout"])
        left = dict(stored)
        tied = {name: how["to"] for name, how in layout.items() if how["form"] == "tied"}
        tensors = {name: _dense(name, how, left) for name, how in layout.items() if name not in tied}
        tensors |= left
        mine = {key: value for key, value in told.items() if key not in OWN}
        if told["digest"] != _digest(tensors, layout, mine):
            raise ValueError("its digest differs")
        state = dict(sorted((tensors | {name: tensors[first] for name, first in tied.items()}).items()))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, MemoryError) as e:
        why = " ".join(str(e).split())[:80]
        raise ValueError(f"{path} was altered ({why}): restore it from version control") from e
    return state, mine, _sizes(len(content), tensors, stored, layout)


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


def _in_order(content: bytes) -> bytes:
    """The same file with its metadata sorted: the library writes them in another order each time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def _sizes(total: int, tensors: Mapping[str, Tensor], stored: Mapping[str, Tensor], layout: Mapping[str, Any]) -> Sizes:
    rows = []
    for name, tensor in sorted(tensors.items()):
        form = layout.get(name, {"form": "dense"})["form"]
        values = stored[name if form == "dense" else f"{name}:values"].nbytes
        side = 0 if form == "dense" else stored[f"{name}:{form}"].nbytes
        rows.append(Row(name, form, tensor.numel(), int((tensor != 0).sum()), values, side))
    dense = len(save_safetensors(dict(tensors)))
    return Sizes(total, dense, total - sum(row.values + row.side for row in rows), tuple(rows))


# -- sparse execution --------------------------------------------------------------------------------------------------


class CSRLinear(nn.Module):
    """A linear layer whose weight is kept in compressed sparse rows, for evaluation: it holds buffers, nothing to
    train.
    """

    rows: Tensor
    columns: Tensor
    values: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = _csr(linear.weight.detach())
        self.register_buffer("rows", weight.crow_indices())
        self.register_buffer("columns", weight.col_indices())
        self.register_buffer("values", weight.values())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), in the weight's dtype; autocast is left out, sparse products know no bfloat16."""
        size = (self.out_features, self.in_features)
        weight = torch.sparse_csr_tensor(self.rows, self.columns, self.values, size, check_invariants=False)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(self.values.dtype), weight, self.bias)


def _csr(weight: Tensor) -> Tensor:
    with warnings.catch_warnings():  # PyTorch says once that its CSR support is in beta
        warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
        return weight.to_sparse_csr()


def to_csr(net: nn.Module, at_least: float = 0.8) -> nn.Module:
    """A copy of ``net`` for evaluation, with every sparse ``nn.Linear`` as a :class:`CSRLinear`.

    Args:
        net: a plain network.
        at_least: share of zeros, in [0, 1], from which on a layer is replaced. Below about 0.8 a sparse product is
            slower than a dense one on most processors; measure yours.
    """
    if not 0 <= at_least <= 1:
        raise ValueError(f"at_least is a share of zeros between 0 and 1, not {at_least}")

    def sparse(module: nn.Module) -> bool:
        """Whether a linear layer has zeros enough."""
        return type(module) is nn.Linear and float((module.weight == 0).float().mean()) >= at_least

    if sparse(net):
        return CSRLinear(net)  # type: ignore[arg-type]
    net = copy.deepcopy(net)
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if sparse(module):
            net.set_submodule(name, CSRLinear(module))
    return net.eval()


def main(paths: list[str]) -> int:
    """Print each file's table of sizes."""
    for path in paths:
        try:
            state, told, found = _read(Path(path))
        except (ValueError, OSError) as e:
            print(f"error: {e}", file=sys.stderr)
            return 1
        print(f"{path}: {len(state)} tensors; " + ", ".join(f"{k} {v}" for k, v in sorted(told.items())))
        print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where a network's zeros and bits are: ``print(summary(net))`` is a table, a row a layer."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .folding import Folded
from .relax import Relaxation, Relaxed
from .reweighted import Weights, holder_of, places
from .sharing import SoftSharing
from .smol import FixedPrecision, Smol, fix_precision
from .smol_training import Quantised

if TYPE_CHECKING:
    import pandas as pd

REST = "everything else"
T = TypeVar("T")


class Row(NamedTuple):
    """One weight of two or more axes, or the templates that several share; None: not known, or not asked for."""

    layer: str
    """The weight's name; the last row's is :data:`REST`: biases, normalisation, coefficients."""
    kind: str
    """Type of the module that holds it."""
    weights: int
    """Numbers that the layer computes with."""
    stored: int
    """How many of them are kept here: none where another row keeps them."""
    zeros: int
    """Of :attr:`weights`, how many are exactly zero in the hardened network."""
    bits: float | None
    """Average bits of a stored weight; those of the number's type where no precision was chosen."""
    shared: tuple[str, ...] = ()
    """The other layers that compute with the same numbers, or with mixtures of the same templates."""
    multiplications: int | None = None
    """For the example, by weights that are zero too."""
    needed: int | None = None
    """Of these, those by weights that are not zero: what an ideal sparse program has to do."""
    bytes: float | None = None
    """In the packed file."""


@dataclass(frozen=True)
class Summary:
    """A table by layer. It prints, shows as HTML in a notebook, and :meth:`frame` makes it a DataFrame."""

    rows: tuple[Row, ...]

    @property
    def total(self) -> Row:
        """All rows as one. ``zeros`` and ``bits`` are those of what is stored, each number once."""
        stored = sum(row.stored for row in self.rows)
        bits = sum((row.bits or 0) * row.stored for row in self.rows) / max(1, stored)
        zeros = sum(row.zeros for row in self.rows if row.stored)
        known = {
            key: None if all(v is None for v in values) else sum(v or 0 for v in values)
            for key in ("multiplications", "needed", "bytes")
            for values in [[getattr(row, key) for row in self.rows]]
        }
        return Row("total", "", sum(row.weights for row in self.rows), stored, zeros, bits, (), **cast(Any, known))

    def frame(self) -> pd.DataFrame:
        """The rows as a pandas DataFrame, indexed by layer; ``ValueError`` where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            raise ValueError("summary(net).frame() needs pandas: pip install pandas, or read .rows") from None
        return pd.DataFrame(self.rows, columns=list(Row._fields)).convert_dtypes().set_index("layer")

    def _cells(self) -> list[list[str]]:
        """The head, the rows and the total as text, without columns that are empty."""
        head = ["layer", "type", "weights", "stored", "zeros", "bits", "shared with", "multiplications", "needed",
                "bytes"]  # fmt: skip
        lines = [head, *map(_line, (*self.rows, self.total))]
        used = [i for i in range(len(head)) if any(line[i] for line in lines[1:])]
        return [[line[i] for i in used] for line in lines]

    def __str__(self) -> str:
        cells = self._cells()
        words = [i for i, name in enumerate(cells[0]) if name in ("layer", "type", "shared with")]
        wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(f"{cell:{'<' if i in words else '>'}{wide[i]}}" for i, cell in enumerate(line)).rstrip()
            for line in cells
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *lines = self._cells()

        def row(cells: list[str], tag: str) -> str:
            """One row of the table."""
            return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "\n".join(row(line, "td") for line in lines)
        return f'<table class="dataframe">\n<thead>{row(head, "th")}</thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def summary(
    net: nn.Module | Quantised,
    example: Any = None,
    *,
    precision: Mapping[str, Tensor] | None = None,
    packed: bool = False,
) -> Summary:
    """What each layer of a network holds: its zeros, its bits, with whom it shares, what it has to multiply.

    Args:
        net: a relaxed network (it is looked at as :meth:`principled.Relaxed.harden` would make it, and left as it is),
            a hardened, folded or plain one, or what :func:`principled.train_smol` returns.
        example: an input as the network takes it, for the multiplications: a tensor, a tuple of arguments, or a dict of
            keyword arguments; with one image, they are those of an image. The network runs on it once, in ``eval()``.
        precision: bits of each weight by name, for a plain network; the others bring theirs along.
        packed: also write the network to a temporary file with ``principled.files`` and say where its bytes go.

    Raises:
        ValueError: a precision for a weight that there is not; ``packed`` without the extra ``principled[files]``.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", UserWarning)  # of layers without a weight left: the table shows it
        state = _State(net.net if isinstance(net, Quantised) else net)
        state.bits |= dict(net.precision if isinstance(net, Quantised) else {}) | dict(precision or {})
        state.settle()
        spent = _bytes(net, precision) if packed else {}
    counts = None if example is None else _multiplications(state.net, example)
    return Summary(tuple(state.rows(counts, spent)))


@dataclass
class _State:
    """A network on its way to plain layers, and what is learned of it on the way."""

    net: nn.Module
    bits: Weights = field(default_factory=dict)
    templates: list[Row] = field(default_factory=list)
    mates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The other layers of a group that shares."""
    elsewhere: set[str] = field(default_factory=set)
    """Layers that are mixtures of templates, which are stored in their place."""
    rest: int = 0
    prefix: str = ""
    """What a file, or a counter of the whole network, puts before the plain network's names."""
    keys: dict[str, str] = field(default_factory=dict)
    """Of rows that are no layer of the plain network, their names in a file."""

    def settle(self) -> None:
        """Harden, one relaxed network inside another after the other."""
        outermost = True
        while isinstance(self.net, Relaxed):
            if not outermost:  # what is known by the outer one's names
                self.bits, self.mates = _without("net.", self.bits), _without("net.", self.mates)
                self.elsewhere = {name.removeprefix("net.") for name in self.elsewhere}
            sharing = [r for r in self.net.relaxations if isinstance(r, SoftSharing)]
            for r in sharing:
                self.mates |= {n: tuple(m for m in names if m != n) for names in r.groups.values() for n in names}
            if len(sharing) == len(self.net.relaxations):  # nothing on top of the mixtures: templates are stored
                for r in sharing:
                    self.elsewhere |= set(r.names)
                    self._take_templates(self.net, r)
                self.prefix += "net."
            else:
                self.bits |= precisions(self.net)
            self.net, outermost = self.net.harden(), False

    def _take_templates(self, net: Relaxed, sharing: SoftSharing) -> None:
        path = next(name for name, module in net.named_modules() if module is sharing)
        for group, names in sharing.groups.items():
            tensor, name = sharing.templates[group], f"{path}.templates.{group}"
            row = _row(f"templates {group}", "Templates", tensor, tensor.numel(), self.bits.get(name), names)
            self.templates.append(row)
            self.keys[row.layer] = self.prefix + name
            self.rest += sharing.alpha[group].numel()

    def rows(self, counts: Mapping[str, int] | None, spent: Mapping[str, float]) -> list[Row]:
        """A row a weight, then the templates, then what is left."""
        inner, layer_of = self.net, {name: name for name in places(self.net)}
        if isinstance(self.net, Folded):
            inner, self.prefix = self.net.net, self.prefix + "net."
            self.bits = _without("net.", self.bits)
            layer_of = {step.name: step.layer for step in self.net.program.steps}
            for layer in set(layer_of.values()):
                names = [name for name, other in layer_of.items() if other == layer]
                self.mates |= {name: tuple(n for n in names if n != name) for name in names}
        kept = places(inner)
        if unknown := [name for name in self.bits if name not in kept and "templates" not in name]:
            raise ValueError(f"precision: {type(inner).__name__} has no weight named {unknown[0]!r}")
        rows: list[Row] = []
        for name, layer in layer_of.items():
            tensor, stored = inner.get_parameter(layer), name == layer and name not in self.elsewhere
            if tensor.ndim < 2:
                self.rest += tensor.numel()
                continue
            mates = self.mates.get(name, ()) + tuple(kept.get(name, [name])[1:])
            kind = type(holder_of(inner, name)[0]).__name__
            row = _row(name, kind, tensor, tensor.numel() if stored else 0, self.bits.get(layer), mates)
            if counts is not None:
                times = sum(counts.get(place.rpartition(".")[0], 0) for place in kept.get(name, [name]))
                row = row._replace(multiplications=times, needed=times * (row.weights - row.zeros) // row.weights)
            rows.append(row)
        if isinstance(self.net, Folded):
            self.rest += sum(p.numel() for p in inner.parameters() if p.ndim < 2)
        rows += self.templates
        if spent:
            rows = [r._replace(bytes=spent.get(self.keys.get(r.layer, self.prefix + r.layer), 0.0)) for r in rows]
        left = spent["file"] - sum(row.bytes or 0 for row in rows) if spent else None
        return [*rows, Row(REST, "", self.rest, self.rest, 0, 32.0, bytes=left)]


def precisions(net: Relaxed) -> Weights:
    """Bits of each weight that hardening would give it, by name; of weights without a precision nothing."""
    weights: Weights = {name: net._parameter(name).detach() for name in net._places}
    bits: Weights = {}
    for relaxation in (cast(Relaxation, r) for r in net.relaxations):
        if isinstance(relaxation, Smol):
            bits |= relaxation.allocate(weights)
        elif isinstance(relaxation, FixedPrecision):
            bits |= relaxation.precision()
        weights |= relaxation.harden(weights)
    return bits


def _row(name: str, kind: str, tensor: Tensor, stored: int, bits: Tensor | None, shared: tuple[str, ...]) -> Row:
    average = float(bits.double().mean()) if bits is not None else 8.0 * tensor.element_size()
    zeros = tensor.numel() - int(tensor.count_nonzero())
    return Row(name, kind, tensor.numel(), stored, zeros, average if stored else None, shared)


def _without(prefix: str, named: Mapping[str, T]) -> dict[str, T]:
    return {name.removeprefix(prefix): value for name, value in named.items()}


def _line(row: Row) -> list[str]:
    shared = row.shared[0] + (f" and {len(row.shared) - 1} more" if len(row.shared) > 1 else "") if row.shared else ""
    whole = (row.multiplications, row.needed, row.bytes)
    return [
        row.layer, row.kind, f"{row.weights:,}", f"{row.stored:,}", f"{row.zeros / max(1, row.weights):.1%}",
        "" if row.bits is None else f"{row.bits:.3g}", shared,
        *("" if number is None else f"{number:,.0f}" for number in whole),
    ]  # fmt: skip


def _multiplications(net: nn.Module, example: Any) -> dict[str, int]:
    """By module of the innermost network: half the floating-point operations that torch counts there."""
    training = [module for module in net.modules() if module.training]
    kwargs: dict[str, Any] = dict(example) if isinstance(example, Mapping) else {}
    args: tuple[Any, ...] = () if kwargs else example if isinstance(example, tuple) else (example,)
    try:
        # with gradients: without them attention takes a path whose operations have no name
        with FlopCounterMode(display=False) as counter:
            net.eval()(*args, **kwargs)
    finally:
        for module in training:
            module.training = True
    root = type(net).__name__ + (".net." if isinstance(net, Folded) else ".")
    counts = counter.get_flop_counts()
    return {name.removeprefix(root): sum(each.values()) // 2 for name, each in counts.items() if name.startswith(root)}


def _bytes(net: nn.Module | Quantised, precision: Mapping[str, Tensor] | None) -> dict[str, float]:
    """By name, what each tensor takes in a packed file, and ``"file"``, all of it."""
    try:
        from principled.files import save, sizes
    except ImportError:
        raise ValueError("summary(net, packed=True) needs principled.files: pip install 'principled[files]'") from None
    if isinstance(net, Relaxed):
        last = list(net.relaxations)[-1]
        if isinstance(last, Smol):
            net = fix_precision(net)
        elif not isinstance(last, FixedPrecision | SoftSharing) or len(net.relaxations) > 1:
            net = net.harden()
    elif precision and isinstance(net, nn.Module):
        net = Quantised(net, dict(precision), {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.principled"
        save(path, net)
        spent = sizes(path)
    return {row.name: row.coded + row.precisions + row.raw for row in spent.rows} | {"file": float(spent.file)}

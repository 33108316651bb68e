"""A matrix times a vector, read from packed bits: blocks of 8 n weights with 0, 1, 2, 4 or 8 bits each (5.6.2).

With those precisions a byte holds whole weights. For a given vector, what each byte value adds to the product is known
beforehand for each place in a row: so each byte costs one look into a table instead of 8 / bits products. Blocks of 0 bits
are not there at all. ``benchmarks/packed_product.py`` measures it against float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from principled.quantize import spacing

from .utils.errors import LabError

PRECISIONS = (1, 2, 4, 8)


class PackedMatrix:
    """``(rows, columns)`` quantised weights, kept as bytes.

    Args:
        weight: float32 matrix whose entries are levels of their precision.
        p: integer matrix, constant within each block of a row, each 0, 1, 2, 4 or 8.
        block: weights in a block, a multiple of 8 that divides the number of columns.

    Raises:
        LabError: a block that mixes precisions, another precision, weights that are on no level.
    """

    def __init__(self, weight: Tensor, p: Tensor, block: int = 32) -> None:
        if weight.ndim != 2 or weight.shape != p.shape:
            raise LabError(
                f"a packed product takes a matrix and its precisions, not {tuple(weight.shape)}, {tuple(p.shape)}"
            )
        if block < 8 or block % 8 or weight.shape[1] % block:
            raise LabError(f"block must be a multiple of 8 that divides {weight.shape[1]} columns, not {block}")
        self.shape, self.block = tuple(weight.shape), block
        blocks, bits = weight.reshape(-1, block), p.reshape(-1, block)
        if not torch.equal(bits, bits[:, :1].expand_as(bits)):
            raise LabError("a block mixes precisions: train with blocks of this length (granularity)")
        if unknown := set(bits[:, 0].unique().tolist()) - {0, *PRECISIONS}:
            raise LabError(f"a block has {min(unknown)} bits: restrict precisions to 0, 1, 2, 4, 8 first")
        per_row = weight.shape[1] // block
        self._device = weight.device
        self.parts = []
        for q in PRECISIONS:
            chosen = (bits[:, 0] == q).nonzero()[:, 0]
            if not len(chosen):
                continue
            table = _table(q).to(weight.device)
            self.parts.append((_bytes(blocks[chosen], q), chosen // per_row, chosen % per_row, table))
        if not torch.equal(self.dense(), weight):
            raise LabError("weights are on no level of their precision: quantise them first")

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights (each block's precision and place not counted)."""
        return sum(codes.numel() for codes, *_ in self.parts)

    def dense(self) -> Tensor:
        """The float32 matrix."""
        rows, columns = self.shape
        out = torch.zeros(rows, columns // self.block, self.block, device=self._device)
        for codes, row, place, table in self.parts:
            out[row, place] = table[codes.long()].reshape(-1, self.block)
        return out.reshape(rows, columns)

    def __matmul__(self, x: Tensor) -> Tensor:
        """``(rows,)``: the product with a float32 vector ``(columns,)``."""
        if x.shape != self.shape[1:]:
            raise LabError(f"a vector of {self.shape[1]} numbers is needed, not {tuple(x.shape)}")
        return product(x.view(-1, self.block), self.parts, self.shape[0])


def product(x: Tensor, parts: list[tuple[Tensor, Tensor, Tensor, Tensor]], rows: int) -> Tensor:
    """What ``@`` computes; a function of tensors alone, so that it compiles."""
    y = torch.zeros(rows, dtype=x.dtype, device=x.device)
    for codes, row, place, table in parts:
        count = codes.shape[1]  # bytes of a block
        adds = x.reshape(-1, table.shape[1]) @ table.T  # (bytes of a row, 256)
        at = place[:, None] * count + torch.arange(count, device=x.device)
        y = y.index_add(0, row, adds.reshape(-1)[at * 256 + codes].sum(1))
    return y


def _table(q: int) -> Tensor:
    """``(256, 8 / q)``: the levels that a byte holds, the first weight in its highest bits."""
    shifts = torch.arange(8 - q, -1, -q)
    codes = (torch.arange(256)[:, None] >> shifts) & (2**q - 1)
    return (2 * codes + 1 - 2**q) * spacing(torch.tensor(q))


def _bytes(blocks: Tensor, q: int) -> Tensor:
    """Codes of whole blocks, 8 / q in a byte, the first in its highest bits."""
    codes = ((blocks / spacing(torch.tensor(q)) + 2**q - 1) / 2).long().clamp(0, 2**q - 1)
    shifts = torch.arange(8 - q, -1, -q, device=blocks.device)
    return (codes.reshape(len(blocks), -1, 8 // q) << shifts).sum(2).to(torch.uint8)

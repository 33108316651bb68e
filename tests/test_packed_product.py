"""The product from packed bits: by hand, equal to the dense one, and what it refuses."""

import pytest
import torch
from torch.testing import assert_close

from lab.packed_product import PackedMatrix
from lab.utils.errors import LabError
from principled import quantize


def matrix(rows, columns, block=32):
    p = torch.tensor([0, 1, 2, 4, 8])[torch.randint(0, 5, (rows, columns // block))].repeat_interleave(block, 1)
    return quantize(torch.randn(rows, columns), p), p


def test_one_byte_by_hand():
    weight = torch.tensor([[1.0, -1, 1, 1, -1, -1, 1, -1]])
    packed = PackedMatrix(weight, torch.ones(1, 8, dtype=torch.int8), block=8)
    assert packed.parts[0][0].tolist() == [[0b10110010]]
    assert packed.nbytes == 1
    assert (packed @ torch.arange(8.0)).tolist() == [0 - 1 + 2 + 3 - 4 - 5 + 6 - 7]


@pytest.mark.parametrize(("rows", "columns", "block"), [(1, 32, 32), (17, 64, 16), (40, 96, 8), (5, 128, 128)])
def test_equal_to_the_dense_product(rows, columns, block):
    weight, p = matrix(rows, columns, block)
    packed, x = PackedMatrix(weight, p, block), torch.randn(columns)
    assert torch.equal(packed.dense(), weight)
    assert packed.nbytes == int(p.sum()) // 8  # every weight its own number of bits
    assert_close(packed @ x, weight @ x, atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_is_refused():
    weight, p = matrix(2, 64)
    mixed = p.clone()
    mixed[0, 0] = 8 - p[0, 0]
    for w, bits, block, says in (
        (weight, mixed, 32, "a block mixes precisions"),
        (weight, torch.full_like(p, 3), 32, "a block has 3 bits"),
        (weight, p, 12, "block must be a multiple of 8 that divides 64 columns"),
        (weight, p, 128, "block must be"),
        (weight + 0.01, p, 32, "weights are on no level"),
        (weight[0], p[0], 32, "takes a matrix and its precisions"),
    ):
        with pytest.raises(LabError, match=says) as caught:
            PackedMatrix(w, bits, block)
        assert "\n" not in str(caught.value)
    with pytest.raises(LabError, match="a vector of 64 numbers is needed"):
        PackedMatrix(weight, p) @ torch.ones(63)

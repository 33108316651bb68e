"""The quantiser of Chapter 5 against enumeration of all levels, and what must hold for any weight and precision."""

import json
import math
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from principled import average_bits, quantize, restrict, zero_precision
from principled.quantize import MAX_BITS, bits_held, nearest_level, spacing

NUMBERS = json.loads((Path(__file__).parent / "fixtures/smol.json").read_text())
ROW = pytest.mark.parametrize("row", NUMBERS["quantiser"], ids=lambda row: f"p={row['p']}")
precisions = st.integers(1, 8)
weights = st.floats(-3, 3, width=32)


def levels(p, dtype=torch.float64):
    """All sums of p signed bits worth 1, 1/2, 1/4 ... (5.2.1); p = 0 has the level 0."""
    sums = [sum(b * 2.0**-j for j, b in enumerate(bits)) for bits in product((-1, 1), repeat=p)]
    return torch.tensor(sorted(sums), dtype=dtype)


def bits(p, like):
    return torch.full(like.shape, p, dtype=torch.int8)


@ROW
def test_levels_and_nearest_level_as_computed_independently(row):
    computed = levels(row["p"])
    assert (len(computed), computed.min(), computed.max()) == (row["n_levels"], row["min"], row["max"])
    assert computed[1] - computed[0] == row["step"]
    w = torch.tensor(row["w"], dtype=torch.float64)
    assert quantize(w, bits(row["p"], w)).tolist() == row["q"]
    zeroed = zero_precision(w, bits(row["p"], w)) == 0
    assert zeroed.tolist() == row["zpa"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("p", range(12))
def test_equal_to_enumeration(p, dtype):
    w = torch.cat([torch.randn(2000), torch.linspace(-2.5, 2.5, 1001)]).to(dtype)
    if p > bits_held(dtype):  # bfloat16 from 9 bits on, float16 from 12
        with pytest.raises(ValueError, match=r"from 0 to 8, not .* in bfloat16; quantise in"):
            quantize(w, bits(p, w))
        return
    q, w = quantize(w, bits(p, w)).double(), w.double()
    assert torch.isin(q, levels(p)).all()
    distance = (w[:, None] - levels(p)).abs().min(1).values
    assert torch.equal((w - q).abs(), distance)


def test_the_thesis_example_and_ties():
    two = torch.tensor(2)
    assert quantize(torch.tensor(0.2), two) == 0.5  # 5.2.4
    assert quantize(torch.tensor(0.0), two) == 0.5  # halfway: upwards
    assert zero_precision(torch.tensor([0.2, 0.25, 0.26]), torch.tensor([2, 2, 2])).tolist() == [0, 0, 2]  # <=, 2^-2


def test_precision_zero_is_plus_zero():
    w = torch.tensor([-3.0, -0.1, 0.0, 2.0])
    q = quantize(w, bits(0, w))
    assert q.tolist() == [0, 0, 0, 0]
    assert not torch.signbit(q).any()


@given(weights, precisions)
def test_error_level_and_idempotence(w, p):
    w, half = torch.tensor([w]), 2.0 ** (1 - p)
    q = quantize(w, bits(p, w))
    assert torch.equal(quantize(q, bits(p, q)), q)
    assert (q / half) % 2 == 1  # an odd multiple: no two precisions share a level
    if w.abs() <= 2:
        assert (w - q).abs() <= half
    assert zero_precision(q, bits(p, q)) == p  # a level is nearer to itself than to zero


@given(weights, precisions)
def test_zero_precision_never_costs_accuracy(w, p):
    w = torch.tensor([w], dtype=torch.float64)
    p = bits(p, w)
    assert (w - quantize(w, zero_precision(w, p))).abs() <= (w - quantize(w, p)).abs()


def test_groups_give_up_their_bits_only_as_a_whole():
    w = torch.tensor([0.1, 0.2, 0.1, 1.4])
    p = bits(2, w)  # levels 0.5, 0.5, 0.5, 1.5
    assert zero_precision(w, p).tolist() == [0, 0, 0, 2]
    assert zero_precision(w, p, torch.tensor([0, 0, 1, 1])).tolist() == [0, 0, 2, 2]


def test_spacing_is_exact_and_a_dtype_holds_as_many_bits_as_its_mantissa():
    held = {dtype: bits_held(dtype) for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
    assert list(held.values()) == [24, 24, 11, 8]
    p = torch.arange(MAX_BITS + 1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert spacing(p, dtype).tolist() == [2.0 ** (1 - i) for i in range(MAX_BITS + 1)]


def test_precisions_that_hardware_has():
    p = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], dtype=torch.int8)
    up, nearest = restrict(p), restrict(p, direction="nearest")
    assert up.tolist() == [0, 1, 2, 4, 4, 8, 8, 8, 8, 8]
    assert nearest.tolist() == [0, 1, 2, 4, 4, 4, 8, 8, 8, 8]
    assert up.dtype == p.dtype
    assert restrict(p, (4,)).tolist() == [4] * 10


def test_average_bits():
    assert average_bits({"a": torch.tensor([[1, 2]]), "b": torch.tensor([0, 8, 4, 0])}) == 2.5


def test_compiled():
    w, p = torch.randn(4, 50), torch.randint(0, 9, (4, 50), dtype=torch.int8)
    torch.compiler.reset()
    assert torch.equal(torch.compile(quantize, fullgraph=True, backend="aot_eager")(w, p), quantize(w, p))


@pytest.mark.skipif(torch.__version__ < (2, 13), reason="PyTorch batches no view of another type")
def test_under_vmap():
    w, p = torch.randn(4, 50), torch.randint(0, 9, (4, 50), dtype=torch.int8)
    assert torch.equal(torch.vmap(nearest_level)(w, p), quantize(w, p))


@pytest.mark.parametrize(
    ("w", "p", "says"),
    [
        (torch.ones(1), torch.ones(1) * 1.5, "must be an integer tensor, not torch.float32"),
        (torch.ones(1), torch.tensor([True]), "must be an integer tensor, not torch.bool"),
        (torch.ones(2), torch.tensor([1, -1]), "from 0 to 24, not -1"),
        (torch.ones(1), torch.tensor([25]), "from 0 to 24, not 25"),
        (torch.tensor([1.0, math.nan]), torch.tensor([1, 1]), "1 of 2 weights are NaN or infinite"),
        (torch.tensor([math.inf]), torch.tensor([1]), "1 of 1 weights are NaN or infinite"),
    ],
)
@pytest.mark.parametrize("verb", [quantize, zero_precision])
def test_senseless_input_is_one_line(verb, w, p, says):
    with pytest.raises(ValueError, match=says) as caught:
        verb(w, p)
    assert "\n" not in str(caught.value)


def test_restrict_and_average_refuse():
    with pytest.raises(ValueError, match="no precision is allowed"):
        restrict(torch.tensor([1]), ())
    with pytest.raises(ValueError, match="direction must be up or nearest"):
        restrict(torch.tensor([1]), direction="down")
    with pytest.raises(ValueError, match="empty"):
        average_bits({})

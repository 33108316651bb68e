"""Batched augmentation against the loop over images that it replaces."""

import pytest
import torch
import torch.nn.functional as F

from lab.datasets.augment import crop_flip, cutout, fill_square, random_crop_flip

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=40, c=3, h=32, w=32, dtype=torch.uint8, layout=torch.contiguous_format):
    x = torch.randint(
        1, 256, (n, c, h, w), generator=generator(9), dtype=torch.uint8
    )  # no zero: zeros are the border's
    return x.to(dtype).contiguous(memory_format=layout)


def slow_crop_flip(x, top, left, flip, pad):
    out = torch.empty_like(x)
    for i in range(len(x)):
        window = F.pad(x[i], (pad,) * 4)[:, top[i] : top[i] + x.shape[2], left[i] : left[i] + x.shape[3]]
        out[i] = window.flip(2) if flip[i] else window
    return out


def slow_fill(x, row, column, size):
    out = x.clone()
    for i in range(len(x)):
        y, z = int(row[i]) - size // 2, int(column[i]) - size // 2
        out[i, :, max(y, 0) : max(y + size, 0), max(z, 0) : max(z + size, 0)] = 0
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "pad"), [((32, 32), 4), ((8, 5), 2), ((6, 6), 0)])
def test_crop_flip_equals_the_loop(dtype, layout, size, pad):
    x = batch(60, h=size[0], w=size[1], dtype=dtype, layout=layout)
    g = generator(1)
    top, left = torch.randint(0, 2 * pad + 1, (2, 60), generator=g)
    flip = torch.rand(60, generator=g) < 0.5
    before = x.clone()
    out = crop_flip(x, top, left, flip, pad)
    assert torch.equal(out, slow_crop_flip(x, top, left, flip, pad))
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


def test_crop_flip_by_hand():
    x = torch.tensor([[1, 2], [3, 4]]).view(1, 1, 2, 2)
    zero, yes, no = torch.tensor([0]), torch.tensor([True]), torch.tensor([False])
    assert crop_flip(x, zero, zero, no, 1).squeeze().tolist() == [[0, 0], [0, 1]]
    assert crop_flip(x, zero, zero, yes, 1).squeeze().tolist() == [[0, 0], [1, 0]]
    assert crop_flip(x, zero + 1, zero + 1, no, 1).squeeze().tolist() == [[1, 2], [3, 4]]
    assert crop_flip(x, zero + 2, zero + 1, yes, 1).squeeze().tolist() == [[4, 3], [0, 0]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [0, 1, 5, 16, 80])
def test_fill_square_equals_the_loop(size, layout):
    x = batch(60, h=32, w=20, dtype=torch.float32, layout=layout)
    g = generator(2)
    row, column = torch.randint(0, 32, (60,), generator=g), torch.randint(0, 20, (60,), generator=g)
    before = x.clone()
    out = fill_square(x, row, column, size)
    assert torch.equal(out, slow_fill(x, row, column, size))
    assert out.is_contiguous(memory_format=layout)
    assert torch.equal(x, before)


def test_cutout_hole_may_leave_the_image():
    x = torch.ones(3, 1, 32, 32)
    at = torch.tensor([0, 16, 31])
    holes = (fill_square(x, at, at) == 0).sum((1, 2, 3))
    assert holes.tolist() == [8 * 8, 16 * 16, 9 * 9]  # rows -8..7, 8..23, 23..38


@pytest.mark.parametrize("function", [random_crop_flip, cutout])
def test_the_generator_decides(function):
    x = batch(dtype=torch.float32)
    assert torch.equal(function(x, generator(3)), function(x, generator(3)))
    assert not torch.equal(function(x, generator(3)), function(x, generator(4)))
    g = generator(3)
    state = torch.get_rng_state()
    assert not torch.equal(function(x, g), function(x, g))
    assert torch.equal(torch.get_rng_state(), state)  # the global one is not touched
    assert function(x[:0], g).shape == (0, 3, 32, 32)


def test_every_offset_and_both_mirrors_are_drawn():
    x = torch.arange(1, 10).view(1, 1, 3, 3).expand(4000, 1, 3, 3)
    seen, counts = random_crop_flip(x, generator(5), pad=1).flatten(1).unique(dim=0, return_counts=True)
    assert len(seen) == 3 * 3 * 2
    expected = 4000 / 18
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 40.8  # 17 degrees of freedom: exceeded once in a thousand


def test_cutout_centres_are_uniform():
    out = cutout(torch.ones(6400, 1, 8, 8), generator(6), size=1)
    holes = (out == 0).sum((0, 1)).flatten()
    assert holes.sum() == 6400
    assert ((holes - 100.0) ** 2 / 100).sum() < 103.5  # 63 degrees of freedom: exceeded once in a thousand


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_graph_without_a_break(layout):
    x = batch(8, dtype=torch.float32, layout=layout)
    at, flip = torch.arange(8), torch.arange(8) % 2 == 0

    def both(x, top, left, flip):
        return fill_square(crop_flip(x, top, left, flip), top, left)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, at, at, flip), both(x, at, at, flip))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_draws_without_waiting_and_agrees_with_the_cpu():
    x = batch(dtype=torch.float32)
    on_device = x.cuda()
    assert torch.equal(random_crop_flip(on_device, generator(7)).cpu(), random_crop_flip(x, generator(7)))
    own = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        cutout(random_crop_flip(on_device, own), own)
    finally:
        torch.cuda.set_sync_debug_mode("default")

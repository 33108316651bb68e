"""The entropy-coded map of precisions that records hold: any map comes back, each kind in its shortest form."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from saved_networks import quantised

from lab.models import resnet20
from principled.files.precision_map import decode_map, encode_map


@given(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(0, 24),
    st.integers(0, 2**32 - 1),
)
def test_any_map_comes_back(shapes, highest, seed):
    source = np.random.default_rng(seed)
    maps = [source.integers(0, highest + 1, shape) for shape in shapes]
    for read, sent in zip(decode_map(encode_map(maps), [p.shape for p in maps]), maps, strict=True):
        assert np.array_equal(read, sent)


def test_each_kind_of_map_takes_its_own_form():
    source = np.random.default_rng(0)
    rough = source.poisson(source.uniform(0, 4, (64, 64, 1)), (64, 64, 9)).clip(0, 9)
    blocks = np.repeat(source.choice([1, 2, 4, 8], (64, 18)), 32, 1)  # blocks of 32
    regular = np.indices((64, 576)).sum(0) % 3 + 1  # every slice has the same mean
    for p, kind, at_most in (
        (rough, b"C", 12_500),
        (blocks, b"B", 400),
        (regular, b"L", 200),
        (regular * 0 + 2, b"B", 60),
    ):
        data = encode_map([p])
        assert data[:1] == kind
        assert len(data) <= at_most
        assert np.array_equal(decode_map(data, [p.shape])[0], p)


def test_a_map_is_shorter_than_its_entropy_without_context():
    maps = [p.numpy() for p in quantised(resnet20()).relaxations[0].precision().values()]
    share = np.bincount(np.concatenate([p.ravel() for p in maps])) / sum(p.size for p in maps)
    entropy = -sum(s * np.log2(s) for s in share if s) * sum(p.size for p in maps)
    assert 8 * len(encode_map(maps)) < entropy

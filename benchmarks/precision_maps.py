"""What a precision map takes with one coder or another, side by side.

Run ``python benchmarks/precision_maps.py net.principled ...`` on files that principled.files.save wrote.
``zstd`` is measured where the package zstandard is installed. Sizes in bytes; the map is one byte a weight before
coding.
"""

from __future__ import annotations

import argparse
import lzma
import sys
import zlib
from pathlib import Path

import constriction
import numpy as np

from lab.book import benchmarks
from lab.utils.errors import LabError
from principled.files import precisions
from principled.files.precision_map import encode_map

try:
    import zstandard
except ImportError:
    zstandard = None


def one_table(p: np.ndarray) -> int:
    """constriction's range coder with one table for the whole network: the map's plain entropy."""
    coder = constriction.stream.queue.RangeEncoder()
    counts = np.bincount(p, minlength=2).astype(np.float64)
    coder.encode(p.astype(np.int32), constriction.stream.model.Categorical(counts, perfect=False))
    return coder.get_compressed().nbytes + 4 * len(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="net.principled")
    benchmarks.option(parser)
    options = parser.parse_args()
    report = benchmarks.Report(__file__)
    for path in options.files:
        try:
            maps = [p.numpy().astype(np.int64) for p in precisions(path).values()]
        except LabError as error:
            sys.exit(f"error: {error}")
        flat = np.concatenate([p.ravel() for p in maps])
        raw = flat.astype(np.uint8).tobytes()
        sizes = {"zlib 9": len(zlib.compress(raw, 9)), "lzma 9": len(lzma.compress(raw, lzma.FORMAT_ALONE, preset=9))}
        if zstandard is not None:
            sizes["zstd 22"] = len(zstandard.ZstdCompressor(level=22).compress(raw))
        sizes |= {"range coder, one table": one_table(flat), "principled.files.precision_map": len(encode_map(maps))}
        print(f"{path}: {len(flat):,} weights, {flat.mean():.3f} bits on average ({flat.sum() / 8:,.0f} bytes)")
        for name, size in sizes.items():
            print(f"{name:>24}: {size:7,} bytes, {8 * size / len(flat):.3f} bits a weight")
            which = f"{Path(path).stem}: " if len(options.files) > 1 else ""
            report.ratio(f"{which}{name}, over one byte a weight", size / len(flat))
    report.write(options.json)


if __name__ == "__main__":
    main()

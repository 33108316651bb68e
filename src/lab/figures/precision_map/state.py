"""From recorded runs of ``lab.experiments.precision.weights`` to what the precision-map figure draws."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lab.runs import Record
from lab.utils.errors import LabError
from principled.files.precision_map import decode_map


def precision_state(
    families: Mapping[str, Sequence[Record]], *, title: str, dense: Record, pushes: Sequence[float] = ()
) -> dict[str, Any]:
    """The state of :class:`lab.figures.precision_map.widget.PrecisionWidget`.

    Args:
        families: name of a family of networks to its recorded runs; within one the figure's slider goes from many bits
            to few. A run without a precision map is refused.
        title: what the figure is called.
        dense: the record of the plain network that was trained alike.
        pushes: what the recorded basins were pushed by (``lab.experiments.precision.weights.PUSHES``); the first run
            that holds basins gives the second view.

    Raises:
        LabError: no run, a run without a map, or runs of networks whose layers differ.
    """
    every = [record for records in families.values() for record in records]
    if not every:
        raise LabError("the precision map needs at least one recorded run of SMOL")
    for record in every:
        if "map" not in record.get("recording", {}):
            raise LabError(f"run {record['id']} holds no precision map: only runs of SMOL do")
    layers = every[0]["recording"]["layers"]
    if any(record["recording"]["layers"] != layers for record in every):
        raise LabError("the precision map needs runs of one network: their layers differ")
    basins = next((record for record in every if record["recording"].get("basins")), None)
    state: dict[str, Any] = {
        "title": title,
        "profile": every[0]["profile"],
        "layers": layers,
        "dense": dense["figures"]["accuracy"],
        "families": [
            {
                "name": name,
                "networks": [_network(r, layers) for r in sorted(records, key=lambda r: -r["figures"]["bits"])],
            }
            for name, records in families.items()
        ],
    }
    if basins is not None:
        state["basins"] = {"run": basins["id"], "pushes": list(pushes), "weights": basins["recording"]["basins"]}
    return state


def _network(record: Record, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures = record["figures"]
    return {
        "run": record["id"],
        "seed": record["seed"],
        "lambda": record["config"]["method"]["lambda"],
        "bits": figures["bits"],
        "accuracy": figures["accuracy"],
        "bytes": {part: round(figures[f"{part}_bytes"]) for part in ("file", "payload", "map", "rest")},
        "means": [round(figures[f"bits.{layer['name']}"], 3) for layer in layers],
        "map": _for_the_page(record, layers),
    }


def _for_the_page(record: Record, layers: Sequence[Mapping[str, Any]]) -> str:
    """All bits in the zlib format that browsers read by themselves (the record's own coder they do not): two weights a
    byte, the first one in its high half, where no precision is above 15; else a byte a weight."""
    shapes = [tuple(layer["shape"]) for layer in layers]
    maps = decode_map(base64.b64decode(record["recording"]["map"]), shapes)
    bits = np.concatenate([p.ravel() for p in maps]).astype(np.uint8)
    if bits.max(initial=0) < 16:
        even = np.append(bits, np.zeros(len(bits) % 2, np.uint8)).reshape(-1, 2)
        bits = even[:, 0] * 16 + even[:, 1]
    return base64.b64encode(min((_deflated(bits.tobytes(), how) for how in STRATEGIES), key=len)).decode()


STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)


def _deflated(data: bytes, strategy: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, strategy)
    return packer.compress(data) + packer.flush()

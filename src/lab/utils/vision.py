"""The one door to torchvision: ``from lab.utils.vision import torchvision``.

Beside a CPU build of torch, torchvision's wheel from the package index cannot load its compiled operators, and its
import stops at the first of two whose schema it expects to find (``torchvision::nms``, then ``torchvision::qnms``).
The book needs neither operator, only datasets, transforms and models, so their schemas are declared here and the
import is tried again. A torchvision that imports by itself is left alone. The import happens on first use: importing
this module costs nothing.
"""

import importlib
import sys
from types import ModuleType

import torch

_MISSING = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def _load() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left half-made
    for operator, schema in _MISSING.items():
        torch.library.define(operator, schema)
    return importlib.import_module("torchvision")


def __getattr__(name: str) -> ModuleType:
    if name != "torchvision":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = module = _load()
    return module

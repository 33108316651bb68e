"""Small files of sparse, quantised, shared, tied and ordinary networks.

    save("net.principled", net)                 any network, each tensor in the shortest of its forms
    load("net.principled", my_network())        fills your own class, bit for bit
    print(sizes("net.principled"))              which tensor spends what on what

From the command line, ``python -m principled.files FILE`` prints the same. Needs the extra ``principled[files]``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loading import Sizes, load, meta, precisions, sizes
    from .saving import save
    from .values import Change, change, fold_batchnorm

__all__ = ["Change", "Sizes", "change", "fold_batchnorm", "load", "meta", "precisions", "save", "sizes"]
_WHERE = {"save": ".saving", "change": ".values", "Change": ".values", "fold_batchnorm": ".values"}


def __getattr__(name: str) -> Any:  # nothing of numpy or the coder is imported before it is used
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE.get(name, ".loading"), __name__), name)

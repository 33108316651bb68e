"""Principled approximation: make a network's discrete choices by gradient descent.

Each method is one file beside its chapter: ``sharing`` (3), ``sparsity`` (4), ``smol`` (5), ``avagrad`` (6); what they have in
common is ``relax``.
"""

from .quantize import average_bits, quantize, restrict, zero_precision
from .relax import Relaxation, Relaxed
from .smol import FixedPrecision, Smol, fix_precision, train_smol
from .sparsity import ContinuousMask, KeepZeros

__all__ = [
    "ContinuousMask", "FixedPrecision", "KeepZeros", "Relaxation", "Relaxed", "Smol", "average_bits", "fix_precision",
    "quantize", "restrict", "train_smol", "zero_precision",
]  # fmt: skip

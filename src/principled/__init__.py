"""Principled approximation: make a network's discrete choices by gradient descent.

Each method is one file beside its chapter: ``sharing`` (3), ``sparsity`` (4), ``smol`` (5), ``avagrad`` (6); what they have in
common is ``relax``.
"""

from .relax import Relaxation, Relaxed
from .sparsity import ContinuousMask, KeepZeros

__all__ = ["ContinuousMask", "KeepZeros", "Relaxation", "Relaxed"]

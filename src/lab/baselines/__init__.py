"""What the thesis compares with: each competitor a page over the same abstraction, run by the same loop."""

from .iterative_magnitude import IterativeMagnitude
from .magnitude import MagnitudeMask, gradual_sparsity
from .stochastic import StochasticMask

__all__ = ["IterativeMagnitude", "MagnitudeMask", "StochasticMask", "gradual_sparsity"]

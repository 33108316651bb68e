"""What the thesis compares with: each competitor a page over the same abstraction, run by the same loop."""

from .discovered_wirings import DiscoveredWirings
from .hard_concrete import HardConcrete, commit_to_best
from .iterative_magnitude import IterativeMagnitude
from .magnitude import MagnitudeMask, gradual_sparsity
from .slimming import ScaledWeights
from .soft_threshold import SoftThreshold
from .stochastic import StochasticMask

__all__ = [
    "DiscoveredWirings", "HardConcrete", "IterativeMagnitude", "MagnitudeMask", "ScaledWeights", "SoftThreshold",
    "StochasticMask", "commit_to_best", "gradual_sparsity",
]  # fmt: skip

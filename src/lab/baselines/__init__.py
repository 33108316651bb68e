"""What the thesis compares with: each competitor a page over the same abstraction, run by the same loop."""

from .magnitude import MagnitudeMask, gradual_sparsity

__all__ = ["MagnitudeMask", "gradual_sparsity"]

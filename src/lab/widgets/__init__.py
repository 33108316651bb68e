"""Figures that move: live in Jupyter, and with no kernel in the built page, from one front-end module."""

from lab.annealing import Snapshot, annealing_state
from lab.widgets.annealing import AnnealingWidget
from lab.widgets.base import LIVE_ONLY, Widget
from lab.widgets.folding import FoldingWidget
from lab.widgets.frontier import FrontierWidget
from lab.widgets.grid import GridWidget
from lab.widgets.nonconvergence import NonconvergenceWidget
from lab.widgets.precision import PrecisionWidget

__all__ = [
    "LIVE_ONLY",
    "AnnealingWidget",
    "FoldingWidget",
    "FrontierWidget",
    "GridWidget",
    "NonconvergenceWidget",
    "PrecisionWidget",
    "Snapshot",
    "Widget",
    "annealing_state",
]

"""Principled approximation: make a network's discrete choices by gradient descent.

Each method is one file beside its chapter: ``sharing`` (3), ``sparsity`` (4), ``smol`` (5), ``avagrad`` (6); what they
have in common is ``relax``.
"""

from .avagrad import AvaGrad, AvaGradW, DelayedAdam, DynamicAdam
from .find_s_init import find_s_init
from .folding import Folded, Program, fold
from .quantize import average_bits, quantize, restrict, zero_precision
from .relax import Relaxation, Relaxed
from .schedule import Schedule
from .sharing import SoftSharing, decay_groups, group_layers, groupings, layer_similarity, recurrence, reparameterize
from .smol import FixedPrecision, Smol, fix_precision
from .smol_training import train_smol
from .sparsity import ContinuousMask, KeepZeros
from .summary import summary
from .tickets import SequentialMask, Ticket, search_state, ticket_search

__all__ = [
    "AvaGrad", "AvaGradW", "ContinuousMask", "DelayedAdam", "DynamicAdam", "FixedPrecision", "Folded",
    "KeepZeros", "Program", "Relaxation", "Relaxed", "Schedule", "SequentialMask", "Smol", "SoftSharing", "Ticket",
    "average_bits", "decay_groups", "find_s_init", "fix_precision", "fold", "group_layers", "groupings",
    "layer_similarity", "quantize", "recurrence", "reparameterize", "restrict", "search_state", "summary",
    "ticket_search", "train_smol", "zero_precision",
]  # fmt: skip

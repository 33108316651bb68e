"""The registry of experiments: every name under which a run can be recorded, and the module that declares it.

A name is part of its runs' identity: it never changes, wherever the module goes.
"""

EXPERIMENTS = {
    "sharing": "sharing.images",
    "paths": "sharing.shortest_paths",
    "pruning": "sparsity.pruning",
    "methods": "sparsity.rivals",
    "resnet50": "sparsity.rivals:resnet50",
    "tickets": "sparsity.tickets",
    "resnet50_tickets": "sparsity.tickets:resnet50",
    "supermasks": "sparsity.supermasks",
    "precision": "precision.weights",
    "mobile": "precision.small_networks",
    "imagenet_bits": "precision.imagenet",
    "scales": "precision.scales",
    "structure": "precision.structure",
    "activations": "precision.activations",
    "generation": "beyond_classification.generation",
    "translation": "beyond_classification.translation",
    "optimizers": "optimizers.tables",
    "grids": "optimizers.grids",
    "ggan": "optimizers.gan",
    "tuning": "optimizers.search",
    "combining": "combining.stack",
}
"""Name in a record to where it is declared below ``lab.experiments``; imported when asked for."""


def module_name(experiment: str) -> str:
    """The dotted name of the module that declares ``experiment``."""
    return f"lab.experiments.{EXPERIMENTS[experiment].partition(':')[0]}"


def attribute(experiment: str) -> str:
    """Its name in that module: ``experiment``, unless the registry says otherwise after a colon."""
    return EXPERIMENTS[experiment].partition(":")[2] or "experiment"

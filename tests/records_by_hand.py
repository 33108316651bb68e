"""A record made by hand, for tests of what reads records."""


def record(run, accuracy=0.4, sparsity=0.9, **change):
    """The record of ``run`` as if it had finished with these two figures; ``change`` replaces parts of it."""
    made = {
        "schema": 1, "experiment": run.experiment, "id": run.id, "profile": run.profile, "seed": run.seed,
        "state": "finished",
        "config": dict(run.config), "data": {"name": run.config["data"], "checksum": "c"}, "curve": {},
        "figures": {"accuracy": accuracy, "sparsity": sparsity},
        "provenance": {
            "source": "s", "commit": "abc", "dirty": False, "torch": "2", "cuda": None, "python": "3",
            "device": "a processor",
            "precision": "float32", "threads": 1, "seconds": 75.0, "recorded": "2026-01-02T03:04:05+00:00",
        },
    }  # fmt: skip
    return made | change

"""Records for tests of what turns them into tables and figures: no network was trained for them."""

import pytest

from lab import figures

PROVENANCE = {"device": "CPU", "seconds": 1.0, "commit": None}


def record(run, curve=None, recording=None, **numbers):
    """The finished record of a declared run, with these figures."""
    made = {"experiment": run.experiment, "id": run.id, "profile": run.profile, "seed": run.seed, "state": "finished"}
    made |= {"config": dict(run.config), "data": {"name": run.config["data"]}, "provenance": PROVENANCE}
    return made | {"figures": numbers, "curve": curve or {}, "recording": recording or {}}


class Page:
    """What was put on the page: tables as frames, figures as matplotlib has them."""

    def __init__(self):
        self.tables, self.figures = [], []

    def columns(self, *names):
        """The cells of the last table in these columns, a row each."""
        return self.tables[-1][list(names)].astype(str).to_numpy().tolist()


@pytest.fixture
def page(monkeypatch):
    page = Page()
    monkeypatch.setattr(figures, "table", lambda frame, **marks: page.tables.append(frame))
    monkeypatch.setattr(figures, "show", lambda figure, **marks: page.figures.append(figure))
    monkeypatch.setattr(figures, "mark", lambda records: None)
    yield page
    import matplotlib.pyplot as plt

    plt.close("all")

"""What the tests of the data share: sources that give or fail, and how an error is read."""

from pathlib import Path

from lab.datasets.sources import GaveUp

REPOSITORY = Path(__file__).resolve().parents[2]


def giving(content):
    """A source that yields ``content``."""
    return lambda work, limits: iter(content.items())


def failing(why="it is closed"):
    def source(work, limits):
        raise GaveUp(why)
        yield

    return source


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def is_empty(folder: Path) -> bool:
    return not folder.exists() or not list(folder.iterdir())

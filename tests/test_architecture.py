"""The house: rooms, arrows and names that `docs/architecture.md` promises."""

import ast

from lab.book import architecture
from lab.utils.files import ROOT


def test_lab_has_no_more_rooms_than_the_map():
    places = {p.stem for p in (ROOT / "src/lab").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert places - {"__init__"} == set(architecture.ROOMS)


def test_no_import_runs_up():
    assert architecture.upward() == []


def test_there_are_at_most_fifty_arrows_between_the_rooms_of_lab():
    assert len([pair for pair in architecture.arrows() if "principled" not in pair]) <= 50


def test_an_import_that_runs_up_is_seen(tmp_path):
    for name, text in {
        "lab/models/x.py": "from lab.runs import find\n",
        "lab/runs/y.py": "from ..models import x\nfrom . import z\n",
        "principled/z.py": "def f():\n    import lab.utils.files\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert sorted(architecture.upward(tmp_path)) == [
        "models -> runs (lab/models/x.py:1)",
        "principled -> utils (principled/z.py:2)",
    ]


def test_the_picture_is_the_one_of_this_code():
    assert (ROOT / "docs/architecture.svg").read_text(encoding="utf-8") == architecture.picture()


def test_every_public_module_says_what_it_is():
    without = [
        p for p in (ROOT / "src").rglob("*.py") if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))
    ]
    assert without == []

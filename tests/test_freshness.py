"""What makes a result stale, and what does not, on a small package written by each test."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from lab.runs.source_hash import _meaning, closure, source_hash

FILES = {
    "principled/__init__.py": '"""Core."""\nfrom .relax import Relaxed\nfrom .sparsity import ContinuousMask\n'
    'LAZY = {"AvaGrad": "avagrad"}\n',
    "principled/relax.py": "class Relaxed:\n    pass\n",
    "principled/sparsity.py": "from .relax import Relaxed\n\n\nclass ContinuousMask:\n    rate = 1\n",
    "principled/avagrad.py": "class AvaGrad:\n    pass\n",
    "lab/__init__.py": "",
    "lab/figures.py": 'STYLE = "lab.mplstyle"\n',
    "lab/lab.mplstyle": "lines.linewidth: 2\n",
    "lab/models/__init__.py": "from .resnet import resnet20\n\nWIDTH = 16\n",
    "lab/models/resnet.py": "def resnet20():\n    import lab.figures\n",
    "lab/models/vgg.py": "def vgg16():\n    pass\n",
}


@pytest.fixture
def src(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def notebook(src, *cells):
    path = src / "chapter.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}))
    return path


def names(src, *entries):
    return [path.relative_to(src).as_posix() for path in closure(*entries, src=src)]


def test_reexport_leads_to_the_defining_file(src):
    chapter = notebook(src, "from principled import ContinuousMask", "%matplotlib inline\n!ls\nimport torch")
    assert names(src, chapter) == ["principled/relax.py", "principled/sparsity.py"]


def test_lazy_table_leads_to_the_defining_file(src):
    assert names(src, notebook(src, "from principled import AvaGrad")) == ["principled/avagrad.py"]


def test_import_inside_a_function_and_asset_beside_a_module_count(src):
    chapter = notebook(src, "from lab.models import resnet20")
    assert names(src, chapter) == ["lab/figures.py", "lab/lab.mplstyle", "lab/models/resnet.py"]


def test_name_defined_in_a_package_brings_the_package(src):
    assert "lab/models/__init__.py" in names(src, notebook(src, "from lab.models import WIDTH"))


def test_a_whole_package_brings_all_it_imports(src):
    files = names(src, notebook(src, "import principled"))
    assert files == ["principled/__init__.py", "principled/relax.py", "principled/sparsity.py"]


@pytest.mark.parametrize(
    ("file", "text", "stale"),
    [
        ("principled/sparsity.py", FILES["principled/sparsity.py"].replace("rate = 1", "rate = 2"), True),
        ("principled/relax.py", FILES["principled/relax.py"] + "\n\ndef more():\n    pass\n", True),
        ("principled/sparsity.py", '"""Words."""\n# more words\n' + FILES["principled/sparsity.py"], False),
        ("principled/sparsity.py", FILES["principled/sparsity.py"].replace("rate = 1", "rate  =  1\n    'a'"), False),
        ("principled/avagrad.py", "class AvaGrad:\n    other = 1\n", False),
        ("principled/__init__.py", FILES["principled/__init__.py"] + "from .avagrad import AvaGrad\n", False),
    ],
)
def test_what_a_change_touches(src, file, text, stale):
    chapter = notebook(src, "from principled import ContinuousMask")
    before = source_hash(chapter, src=src)
    (src / file).write_text(text)
    assert (source_hash(chapter, src=src) != before) == stale


def test_changed_asset_is_stale(src):
    before = source_hash("lab.figures", src=src)
    (src / "lab/lab.mplstyle").write_text("lines.linewidth: 3\n")
    assert source_hash("lab.figures", src=src) != before


def test_line_ends_are_not_seen(src):
    (src / "lab/figures.py").write_text(FILES["lab/figures.py"] + 'ICON = "icon.png"\n')
    (src / "lab/icon.png").write_bytes(b"PNG\r\n\0\n")
    before = source_hash("lab.figures", src=src)
    for name in ("lab/figures.py", "lab/lab.mplstyle"):
        (src / name).write_bytes((src / name).read_bytes().replace(b"\n", b"\r\n"))
    assert source_hash("lab.figures", src=src) == before
    (src / "lab/icon.png").write_bytes(b"PNG\n\0\n")  # no text: each byte counts
    assert source_hash("lab.figures", src=src) != before


def test_the_hash_of_a_file_beside_a_module_is_that_of_its_bytes():
    """What was recorded with the line ends that git keeps stays fresh."""
    assets = [
        path
        for path in closure("lab.book", "lab.figures.annealing.widget", "lab.runs", "lab.figures")
        if path.suffix != ".py"
    ]
    assert {".css", ".js", ".json"} <= {path.suffix for path in assets}
    for path in assets:
        assert _meaning(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_git_is_told_that_line_ends_are_the_same_everywhere():
    root = Path(__file__).parents[1]
    listed = subprocess.run(["git", "-C", root, "ls-files", "--eol"], capture_output=True, text=True, check=False)
    if listed.returncode or not listed.stdout:
        pytest.skip("no checkout of git")
    for line in listed.stdout.splitlines():
        kept, here, attributes = line.partition("\t")[0].split(maxsplit=2)
        binary = kept == "i/-text"
        assert (kept[2:], attributes.strip()) == (here[2:], "attr/-text" if binary else "attr/text=auto eol=lf"), line
        assert kept in ("i/-text", "i/lf", "i/none"), line


def test_the_real_core():
    files = {path.name for path in closure("principled.sparsity")}
    assert {"sparsity.py", "relax.py"} <= files
    assert "avagrad.py" not in files
    chapters = Path(__file__).parents[1] / "chapters"
    assert "sparsity.py" in {path.name for path in closure(chapters / "01-introduction.ipynb")}

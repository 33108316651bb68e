"""Executing and building, on a book of two tiny chapters."""

import itertools
import json

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pygments.styles import get_style_by_name
from pygments.token import Punctuation, Text, Whitespace

from lab import book
from lab.book import notebooks
from lab.utils.errors import LabError

PARAMETERS = 'profile = "quick"\ndevice = "cpu"\nseed = 0'
COUNT = "from pathlib import Path\n_ = Path('count-{0}').open('a').write('x')"
NOISY = """
import os, sys, time, uuid
import matplotlib.pyplot as plt
from IPython.display import HTML, display
from lab import figures
print(object()); print({"a", "b", "c"}); sys.stdout.flush(); time.sleep(0.05); print("later")
print("\\r 50%|#####     | 1/2", file=sys.stderr); print("keep this warning", file=sys.stderr)
fig, ax = plt.subplots(); ax.plot([0, 1]); figures.show(fig, alt="a line")
data = {"application/vnd.jupyter.widget-view+json": {"model_id": uuid.uuid4().hex}, "text/html": "<p>static</p>"}
display(data, raw=True)
"""


def chapter(path, *cells, title="A chapter"):
    nb = new_notebook(cells=[new_markdown_cell(f"# {title}", id="title")])
    nb.cells.append(new_code_cell(PARAMETERS, id="parameters", metadata={"tags": ["parameters"]}))
    nb.cells += [new_code_cell(cell, id=f"code-{i}") for i, cell in enumerate(cells)]
    nbformat.write(nb, path)
    return path


@pytest.fixture
def root(tmp_path):
    """A repository with a start page and two chapters, 02 and 05: numbers with gaps are kept."""
    (tmp_path / "book").mkdir()
    (tmp_path / "chapters").mkdir()
    (tmp_path / "book" / "index.md").write_text("# Start\n\nSee {eq}`one`.\n")
    (tmp_path / "_config.yml").write_text(
        "title: Tiny\nexecute: {execute_notebooks: 'off'}\nonly_build_toc_files: true\n"
        "sphinx: {extra_extensions: [lab.book.site], config: {html_math_renderer: katex, numfig: true, math_numfig: "
        "true}}\n"
    )
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n"
        "- {caption: A, numbered: 2, chapters: [{file: chapters/02-two}]}\n"
        "- {caption: B, numbered: 2, chapters: [{file: chapters/05-five}]}\n"
    )
    chapter(tmp_path / "chapters" / "02-two.ipynb", COUNT.format("02"), title="Two")
    five = chapter(tmp_path / "chapters" / "05-five.ipynb", COUNT.format("05"), title="Five")
    nb = nbformat.read(five, 4)
    nb.cells.append(new_markdown_cell("$$\nx = 1\n$$ (one)", id="equation"))
    nbformat.write(nb, five)
    return tmp_path


def executed(root):
    """How often each chapter was executed; each run leaves one x, so executions are counted and not assumed."""
    return {n: len(f.read_text()) if (f := root / "chapters" / f"count-{n}").exists() else 0 for n in ("02", "05")}


def build(root, **options):
    return book.build(root=root, **options)


def edit(path, change):
    nb = nbformat.read(path, 4)
    change(nb)
    nbformat.write(nb, path)


def test_two_executions_give_the_same_bytes(tmp_path):
    source = chapter(tmp_path / "01-noisy.ipynb", NOISY, "object()")
    before = source.read_bytes()
    texts = [nbformat.writes(notebooks.run(source, notebooks.DEFAULTS, tmp_path / "failed")) for _ in range(2)]
    assert texts[0] == texts[1]
    assert source.read_bytes() == before
    assert not [word for word in ("papermill", "end-marker", "injected") if word in texts[0]]
    outputs = str([cell.outputs for cell in nbformat.reads(texts[0], 4).cells[1:]])
    assert not [word for word in ("50%|", "model_id", "0x7") if word in outputs]
    assert [word for word in ("keep this warning", "<svg", "static", "later") if word not in outputs] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_code_without_its_plain_spans_looks_the_same(theme):
    config = yaml.safe_load((book.ROOT / "_config.yml").read_text())["sphinx"]["config"]["html_theme_options"]
    style = get_style_by_name(config[f"pygments_{theme}_style"])
    assert style.style_for_token(Punctuation) == style.style_for_token(Whitespace) == style.style_for_token(Text)


def test_only_what_changed_is_done_again(root, capsys, monkeypatch):
    page = build(root)
    assert executed(root) == {"02": 1, "05": 1}
    assert page.as_uri() in capsys.readouterr().out
    five = (root / "_build/html/chapters/05-five.html").read_text()
    assert 'section-number">5.' in five  # not 2, though only one chapter stands before it
    assert "(5.1)" in five
    assert not [kind for kind in "pw" if f'<span class="{kind}">' in five]  # code carries no span that changes nothing
    assert '<span class="n">profile</span>' in five
    assert "(5.1)" in (root / "_build/html/book/index.html").read_text()

    made = {f: f.stat().st_mtime_ns for f in (root / "_build").rglob("*") if f.is_file() and f.name != ".lock"}
    with monkeypatch.context() as unchanged:
        unchanged.setattr(book, "_chapters", None)  # not even read
        build(root)
    assert made == {f: f.stat().st_mtime_ns for f in (root / "_build").rglob("*") if f.is_file() and f.name != ".lock"}

    def reword(nb):
        nb.cells[0].source = "# Another title"

    edit(root / "chapters/02-two.ipynb", reword)  # prose: new page, no new execution
    build(root)
    assert executed(root) == {"02": 1, "05": 1}
    assert "Another title" in (root / "_build/html/chapters/02-two.html").read_text()

    def recode(nb):
        nb.cells[2].source += "\nprint('changed')"

    edit(root / "chapters/02-two.ipynb", recode)
    build(root)
    assert executed(root) == {"02": 2, "05": 1}
    assert "changed" in (root / "_build/html/chapters/02-two.html").read_text()

    (root / "_build/executed/05-five.ipynb").write_text("{}")  # a damaged record is no record
    build(root)
    assert executed(root) == {"02": 2, "05": 2}

    (root / "book/index.md").write_text("# Start\n\n{eq}`nowhere`\n")  # a warning stops; the last good book stays
    with pytest.raises(LabError, match=r"1 warnings or errors.*jupyter-book\.log"):
        build(root)
    assert "nowhere" in capsys.readouterr().err
    assert "(5.1)" in (root / "_build/html/book/index.html").read_text()


def test_chapters_side_by_side(root, monkeypatch):
    pressed = []
    monkeypatch.setattr(book.pages, "press", lambda stage, root: pressed.append(stage) or root / "page.html")
    build(root, jobs=2)
    assert executed(root) == {"02": 1, "05": 1}
    assert (pressed[0] / "chapters" / "02-two.ipynb").is_file()


def test_source_and_data_are_part_of_the_key(root):
    src = root / "src"
    for name, text in {"lab/__init__.py": "", "lab/datasets/thesis.py": "x = 1\n", "lab/other.py": "x = 1\n"}.items():
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_text(text)
    (root / "data/thesis").mkdir(parents=True)
    table = root / "data/thesis/table.csv"
    table.write_text("1")
    reads = chapter(root / "chapters" / "06-six.ipynb", "from lab.datasets import thesis")
    not_ = root / "chapters" / "02-two.ipynb"

    def keys():
        return [book._key(path, notebooks.DEFAULTS, root) for path in (reads, not_)]

    first = keys()
    (src / "lab/other.py").write_text("x = 2\n")
    assert keys() == first
    (src / "lab/datasets/thesis.py").write_text("x = 2\n")
    second = keys()
    assert (second[0] != first[0], second[1] == first[1]) == (True, True)
    table.write_text("2")
    assert (keys()[0] != second[0], keys()[1] == second[1]) == (True, True)
    assert book._key(reads, {**notebooks.DEFAULTS, "profile": "short"}, root) != keys()[0]


def test_the_records_that_a_chapter_reads_are_part_of_its_key(root, monkeypatch):
    reads = chapter(root / "chapters" / "06-six.ipynb", "from lab.experiments.sparsity import pruning")
    files = [root / "data/quick" / f"{name}.jsonl" for name in ("pruning", "generation")]
    files[0].parent.mkdir(parents=True)
    keys = [book._key(reads, notebooks.DEFAULTS, root)]
    for file in files:
        file.touch()
        keys.append(book._key(reads, notebooks.DEFAULTS, root))
    monkeypatch.setenv("LAB_QUICK", "train")
    keys.append(book._key(reads, notebooks.DEFAULTS, root))
    monkeypatch.setenv("LAB_RUNS", str(root / "runs"))
    keys.append(book._key(reads, notebooks.DEFAULTS, root))
    (root / "runs/pruning").mkdir(parents=True)
    (root / "runs/pruning/a.json").touch()
    keys.append(book._key(reads, notebooks.DEFAULTS, root))
    assert [a == b for a, b in itertools.pairwise(keys)] == [False, True, False, False, False]


def test_error_in_a_cell_is_one_line(root):
    bad = chapter(root / "chapters" / "05-five.ipynb", "1 + 1", "raise ValueError('no\\nluck')")
    with pytest.raises(LabError) as caught:
        build(root)
    message = str(caught.value)
    assert message.startswith("05-five.ipynb, cell 4: ValueError: no luck (traceback: ")
    assert "\n" not in message
    failed = root / "_build" / "failed" / bad.name
    assert "Traceback" in failed.read_text()
    assert executed(root)["02"] == 1  # the chapter before it is recorded
    assert not (root / "_build/executed/05-five.json").exists()


def test_killed_kernel_is_not_done(root):
    chapter(root / "chapters" / "02-two.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(LabError, match=r"02-two\.ipynb, cell 3: the kernel .*memory"):
        build(root)
    assert not (root / "_build/executed/02-two.json").exists()


def test_kernel_that_exits_politely_is_not_done(root):
    chapter(root / "chapters" / "02-two.ipynb", "import os\nos._exit(0)")
    with pytest.raises(LabError, match=r"02-two\.ipynb, cell 3: the kernel"):
        build(root)


def test_execute_writes_elsewhere_and_shows_its_parameters(root):
    source = chapter(root / "chapters" / "02-two.ipynb", "print(profile, device, seed)")
    before = source.read_bytes()
    target = book.execute("2", "short", "cpu", 3, root=root)
    assert target == root / "_build" / "chapters" / "02-two-short.ipynb"
    nb = nbformat.read(target, 4)
    assert nb.cells[-1].outputs[0].text == "short cpu 3\n"
    assert 'profile = "short"' in nb.cells[2].source
    assert source.read_bytes() == before
    assert book.execute("02-two", output=root / "here.ipynb", root=root) == root / "here.ipynb"


def test_refresh_in_place_and_no_second_execution(root):
    source = root / "chapters" / "02-two.ipynb"
    edit(source, lambda nb: nb.cells.append(new_code_cell("6 * 7", id="six")))
    assert book.refresh(["02"], root=root) == [source]
    assert nbformat.read(source, 4).cells[-1].outputs[0].data["text/plain"] == "42"
    assert book.refresh(["02"], root=root) == []
    assert executed(root) == {"02": 2, "05": 0}
    record = json.loads((root / "_build/executed/02-two.json").read_text())
    assert record["key"] == book._key(source, notebooks.DEFAULTS, root)


@pytest.mark.parametrize("wanted", ["07", "seven", "two"])
def test_unknown_chapter_is_named_with_those_there(root, wanted):
    with pytest.raises(LabError, match=rf"no chapter '{wanted}'.*02-two, 05-five"):
        book.execute(wanted, root=root)


def test_no_book_and_no_permission_are_one_line(root, tmp_path):
    with pytest.raises(LabError, match="holds no book"):
        build(tmp_path / "nowhere")
    (root / "_build").write_text("a file where the folder should be")
    with pytest.raises(
        LabError, match=r"cannot make .*_build: a file is in the way, where a folder should be: move it"
    ):
        build(root)


def test_unreadable_notebook_is_named(root):
    (root / "chapters" / "02-two.ipynb").write_text("{ half")
    with pytest.raises(LabError, match=r"02-two\.ipynb is no readable notebook"):
        build(root)

"""The generated parts of pages: networks that answer, four moving figures at once, what each method did, one number
followed to its run.

``book/index.md`` and ``book/numbers.md`` hold markers; :func:`page` puts the figures of the executed chapters, cut down
to a glance, in the place of one, a table of effects and the followed number in the place of the others. Nothing on it
is typed and nothing is trained for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from lab import runs
from lab.figures import provenance
from lab.figures.annealing.widget import AnnealingWidget
from lab.figures.folding.widget import FoldingWidget
from lab.figures.grid.widget import GridWidget
from lab.figures.precision_map.widget import PrecisionWidget
from lab.figures.run_here.widget import RunHereWidget
from lab.figures.widget import Widget
from lab.runs import Record
from lab.utils.errors import LabError

ANSWERS = "<!-- one picture, four networks: lab.book.landing -->"
FIGURES = "<!-- four figures: lab.book.landing -->"
EXAMPLE = "<!-- one number: lab.book.landing -->"
EFFECTS = "<!-- which method: lab.book.landing -->"
STATES = "<!-- what the scoreboard says: lab.book.landing -->"
STATE = re.compile(r'<script type="application/json">(.*?)</script>', re.S)


# -- figures -----------------------------------------------------------------------------------------------------------


def _one_run(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"runs": state["runs"][:1]}


def _few_precisions(state: dict[str, Any]) -> dict[str, Any]:
    most = max(state["families"], key=lambda family: len(family["networks"][0]["map"]))  # a precision for each weight
    cut = [most | {"networks": most["networks"][:3]}]
    return {key: value for key, value in state.items() if key != "basins"} | {"families": cut}


def _whole(state: dict[str, Any]) -> dict[str, Any]:
    return state


SHOWN: dict[str, tuple[type[Widget], str, str, str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "03": (FoldingWidget, "pa-folding", "A network folds", "Lower the threshold: layers join, a loop appears.",
           _one_run),
    "04": (AnnealingWidget, "pa-annealing", "A mask hardens", "Press play: every weight drifts to kept or gone.",
           _whole),
    "05": (PrecisionWidget, "pa-precision", "Weights choose their bits",
           "One cell a weight; its colour says how many bits.", _few_precisions),
    "06": (GridWidget, "pa-grids", "Two knobs come apart",
           "Learning rate against ε: AvaGrad's good region is straight.", _whole),
}  # fmt: skip
"""Chapter to the figure that the start page borrows from it: class, root of its style, heading, what to see, how it is
cut."""


def figure(chapter: str, executed: Any) -> str:
    """The chapter's moving figure in its small form, as HTML.

    Args:
        chapter: a key of :data:`SHOWN`.
        executed: the chapter's executed notebook.

    Raises:
        LabError: the chapter has no such figure.
    """
    kind, root, title, see, cut = SHOWN[chapter]
    for cell in executed.cells:
        for out in cell.get("outputs", []):
            text = "".join(out.get("data", {}).get("text/html", ""))
            found = STATE.search(text)
            if found and f".{root} " in text:
                state = cut(json.loads(found[1])["state"])
                more = f'<a href="../chapters/{_address(chapter)}">Chapter {int(chapter)}</a>'
                head = f'<h3>{title}</h3><p>{see} <span class="pa-more">More in {more}.</span></p>'
                return f'<div class="pa-glance">{head}\n{kind(state).static_html()}\n</div>'
    raise LabError(f"the start page shows Chapter {int(chapter)}'s {kind.__name__}, and its notebook has none")


def _address(chapter: str) -> str:
    from .pages import ROOT

    return next((ROOT / "chapters").glob(f"{chapter}-*.ipynb")).with_suffix(".html").name


ANSWERING = ("dense", "cs", "smol", "gmp")
"""Methods whose shipped networks answer at the top of the start page."""


def answers() -> str:
    """The figure that computes, cut down to its answers, as HTML: the first thing that a visitor moves."""
    return RunHereWidget.of_shipped(ANSWERING, title="One picture, four networks", inside=False).static_html()


# -- the table ---------------------------------------------------------------------------------------------------------


def _over(some: Iterable[float], digits: int = 1) -> str:
    """The mean of shares in percent, with its standard deviation where there are several; no line breaks inside."""
    values = list(some)
    spread = f" ± {100 * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.{digits}f}{spread} %".replace(" ", "\N{NO-BREAK SPACE}")


def _accuracy(some: Sequence[Record]) -> str:
    return _over(record["figures"]["accuracy"] for record in some)


def _repeated(some: Sequence[Record], same: Callable[[Record], Any]) -> list[Record]:
    """The runs of the configuration that most seeds repeat, the first of those with equally many."""
    groups: dict[Any, list[Record]] = {}
    for record in some:
        groups.setdefault(same(record), []).append(record)
    return max(groups.values(), key=len, default=[])


def _method(record: Record) -> dict[str, Any]:
    method: dict[str, Any] = record["config"]["method"]
    return method


def _config(record: Record) -> str:
    return json.dumps(record["config"], sort_keys=True)


def _sharing(found: Sequence[Record]) -> tuple[str, list[Record]] | None:
    plain = _repeated([r for r in found if _method(r)["templates"] is None], _config)
    if not plain:
        return None
    alike = [
        r for r in found if r["data"] == plain[0]["data"] and r["config"]["training"] == plain[0]["config"]["training"]
    ]
    alike = [r for r in alike if all(_method(r)[k] == _method(plain[0])[k] for k in ("depth", "width"))]
    size = plain[0]["figures"]["parameters"]
    shared = _repeated([r for r in alike if not _method(r)["lambda"] and r["figures"]["parameters"] < size], _config)
    if not shared:
        return None
    kept = shared[0]["figures"]["parameters"] / size
    return (
        f"{_over([kept], 0)} of the parameters; accuracy {_accuracy(shared)}, unshared {_accuracy(plain)}",
        [*shared, *plain],
    )  # fmt: skip


def _sparsity(found: Sequence[Record]) -> tuple[str, list[Record]] | None:
    mine = [r for r in found if r["config"]["model"] == "resnet20"]
    dense = [r for r in mine if _method(r)["name"] == "dense"]
    masked = _repeated([r for r in mine if _method(r)["name"] == "cs"], _config)
    if not (dense and masked):
        return None
    zero = _over(r["figures"]["sparsity"] for r in masked)
    return f"{zero} of the weights are 0; accuracy {_accuracy(masked)}, dense {_accuracy(dense)}", [*masked, *dense]


def _precision(found: Sequence[Record]) -> tuple[str, list[Record]] | None:
    mine = [r for r in found if r["config"]["model"] == "resnet20"]
    dense = [r for r in mine if _method(r)["name"] == "dense"]
    small = _repeated([r for r in mine if _method(r)["name"] == "smol" and _method(r)["zero"] is True], _config)
    if not (dense and small):
        return None
    bits = mean(r["figures"]["bits"] for r in small)
    size = mean(r["figures"]["file_bytes"] for r in small) / 1000
    return (
        f"{bits:.2f} bits a weight instead of 32, a file of {size:.0f} kB; accuracy {_accuracy(small)}, "
        f"full precision {_accuracy(dense)}", [*small, *dense],
    )  # fmt: skip


def _optimizer(found: Sequence[Record]) -> tuple[str, list[Record]] | None:
    by_name = {name: [r for r in found if _method(r)["name"] == name] for name in ("AvaGrad", "Adam")}
    pairs = [(a, b) for a in by_name["AvaGrad"] for b in by_name["Adam"] if a["data"] == b["data"]]
    pairs = [(a, b) for a, b in pairs if a["config"]["training"] == b["config"]["training"]]
    if not pairs:
        return None
    ours, adam = pairs[0]
    within = [_over([r["figures"]["within_5"]], 0) for r in (ours, adam)]
    return (
        f"{within[0]} of the settings tried come within 5 points of its best, with Adam {within[1]}; best accuracy "
        f"{_accuracy([ours])}, with Adam {_accuracy([adam])}", [ours, adam],
    )  # fmt: skip


ROWS: tuple[tuple[str, str, str, str, str, Callable[[Sequence[Record]], tuple[str, list[Record]] | None]], ...] = (
    ("fewer <em>different</em> layers, or a network that is a loop", "soft parameter sharing", "03", "sharing",
     "one small matrix product a group of layers", _sharing),
    ("most weights exactly zero, chosen by training", "Continuous Sparsification", "04", "pruning",
     "one variable and one sigmoid a weight", _sparsity),
    ("few bits a weight, and a file as small as that", "SMOL", "05", "precision",
     "one variable and one random number a weight", _precision),
    ("an adaptive optimizer that is easy to tune", "AvaGrad", "06", "grids", "what Adam costs", _optimizer),
)  # fmt: skip


def effect(
    experiment: str, words: Callable[[Sequence[Record]], tuple[str, list[Record]] | None]
) -> tuple[str, str, list[Record]]:
    """What a method did: ``(profile, words, records)`` from the most demanding profile whose runs are there.

    Raises:
        LabError: not even the quick runs are.
    """
    for profile in ("paper", "short", "quick"):
        wanted = runs.declaration(experiment).runs(profile)
        found = [record for run in wanted if (record := runs.find(run))]
        if found and (said := words(found)):
            return profile, *said
    raise LabError(f"the start page has no run of {experiment}: execute the chapters first (`python -m lab book`)")


def effects() -> tuple[str, list[str]]:
    """The table "which method do I want": goal, method, price in training, effect; and the boxes that its marks
    open."""
    head = ("you want", "method", "price in training", "what it did here")
    lines, boxes = [], {}
    for goal, method, chapter, experiment, price, words in ROWS:
        profile, said, behind = effect(experiment, words)
        link = f'<a href="../chapters/{_address(chapter)}">{method}</a>'
        ids = sorted({record["id"] for record in behind})
        mark = provenance.note(profile, behind)
        boxes.update(dict.fromkeys(provenance.BOX.findall(mark)))
        assert ids
        lines.append(
            f"<tr><td>{goal}</td><td>{link}</td><td>{price}</td><td>{provenance.safe(said)}{provenance.strip(mark)}</td></tr>"
        )
    table = "".join(f'<th scope="col">{h}</th>' for h in head)
    body = "".join(lines)
    return f'<table class="table pa-which"><thead><tr>{table}</tr></thead><tbody>{body}</tbody></table>', list(boxes)


def example() -> str:
    """A number of the scoreboard, followed to its run and repeated: markdown with the commands, from the first that has
    one."""
    from . import scoreboard

    by_id = {record["id"]: record for record in runs.recorded()}
    rows = [row for row in scoreboard.board(by_id.values()) if row.measured and row.measured.runs]
    row = next((row for row in rows if row.state != "not run"), rows[0] if rows else None)
    if row is None or row.measured is None or row.claim is None:
        return "No claim of the thesis has a recorded run yet."
    record = by_id[row.measured.runs[0]]
    place = f"data/runs/{record['experiment']}/{record['id']}.json"
    again = f"_build/again/{record['experiment']}/{record['id']}.json"
    command = provenance.repeat([record]).replace(" python", " \\\n  python").replace(" --profile", " \\\n  --profile")
    minutes = record["provenance"]["seconds"] / 60
    return (
        f"The scoreboard's row *{row.title}* says {row.measured.value:.3g} {row.claim.unit} for this book, from "
        f"{row.measured.n} run{'s' * (row.measured.n > 1)}. Open the row: the first is `{record['id']}`. Its "
        "record:\n\n"
        f"```bash\npython -m json.tool {place} | head -60\n```\n\n"
        f"It was made in {minutes:.0f} minutes on {record['provenance']['device']}. To train it once more, beside "
        "what is "
        f"recorded, and look at what came out:\n\n```bash\n{command}\npython -m json.tool {again} | head -60\n```"
    )


def page(text: str, executed: Mapping[str, Any]) -> str:
    """A page with its markers replaced.

    Args:
        text: the page.
        executed: chapter (``"04"``) to its executed notebook.
    """
    boxes: list[str] = []
    shown = []
    if ANSWERS in text:
        shown.append(answers())
        text = text.replace(ANSWERS, f"````{{raw}} html\n{shown[0]}\n````")
    if FIGURES in text:
        figures = [figure(chapter, executed[chapter]) for chapter in SHOWN]
        shown += figures
        text = text.replace(FIGURES, f'````{{raw}} html\n<div class="pa-gallery">{"".join(figures)}</div>\n````')
    boxes += provenance.boxes({name: ids.split() for one in shown for name, ids in provenance.MARK.findall(one)})
    if EFFECTS in text:
        table, more = effects()
        boxes += [box for box in more if box not in boxes]
        text = text.replace(EFFECTS, f"````{{raw}} html\n{table}\n````")
    if EXAMPLE in text:
        text = text.replace(EXAMPLE, example())
    if STATES in text:
        from . import scoreboard

        text = text.replace(STATES, scoreboard.sentence(scoreboard.board(runs.recorded())))
    return f"{text}\n{provenance.appendix(boxes)}\n" if boxes else text

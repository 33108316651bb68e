"""Execute a notebook so that two executions give the same bytes, and so that a failure is one line.

A chapter runs in ``chapters/``, where JupyterLab and nbval run it too. Papermill executes it; what papermill, the
kernel and the clock leave behind is taken out by :func:`clean`. Papermill calls a notebook whose kernel was killed
completed, so the record of success is our own: an end marker that only the last cell can print.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from lab.figures.provenance import strip
from lab.utils.errors import LabError

DEFAULTS: dict[str, Any] = {"profile": "quick", "device": "cpu", "seed": 0}
"""What a chapter's ``parameters`` cell holds; with these the book shows it and the repository keeps it."""

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
MARKER = "the-end-was-reached"
NOISE = re.compile(r"^.*(\r|\d+%\|).*\n?", re.M)  # progress bars, which draw over themselves
UNSTABLE = (
    (re.compile(r"/\S*?ipykernel_\d+/\d+\.py"), "<cell>"),
    (re.compile(r"\bat 0x[0-9a-fA-F]{6,}"), "at 0x…"),
)


def run(notebook: Path, parameters: dict[str, Any], failed: Path, bar: dict[str, Any] | None = None) -> Any:
    """Execute ``notebook`` in its folder and return it cleaned.

    Args:
        notebook: an ``.ipynb`` file; it is not changed.
        parameters: values for its ``parameters`` cell; visible in the result unless they are :data:`DEFAULTS`.
        failed: where the half-executed notebook goes on a failure, with its traceback.
        bar: keyword arguments of tqdm for the bar that counts cells; None for none.

    Raises:
        LabError: a cell raised, or the kernel died; the line names chapter, cell, error and what to do.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    nb = nbformat.read(notebook, as_version=4)
    end = nbformat.v4.new_code_cell(f"print({MARKER!r})", id="end-marker")
    end.metadata.tags = ["end-marker"]
    nb.cells.append(end)
    nb.metadata.kernelspec = KERNEL
    with tempfile.TemporaryDirectory() as folder, _same_everywhere():
        source, output = Path(folder, "in.ipynb"), Path(folder, "out.ipynb")
        nbformat.write(nb, source)
        problem = ""
        try:
            papermill.execute_notebook(
                source,
                output,
                parameters,
                kernel_name="python3",
                cwd=notebook.parent,
                progress_bar=bar or False,
                stderr_file=sys.stderr if bar and not bar.get("disable") else None,  # the bars of long cells
                extra_arguments=["--log-level=CRITICAL"],  # the kernel's remarks on its transport help no reader
            )
        except papermill.PapermillExecutionError as error:
            problem = f"{error.ename}: {' '.join(error.evalue.split())}".rstrip(": ")
        except (DeadKernelError, RuntimeError) as error:
            problem = f"the kernel died ({str(error).rstrip('.').lower()}); was memory short?"
        result = nbformat.read(output if output.exists() else source, as_version=4)
    if not problem and MARKER not in str(result.cells[-1].get("outputs")):
        problem = "the kernel stopped before the end; was memory short?"
    if problem:
        failed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(result, failed)
        raise LabError(
            f"{notebook.name}, cell {_failing(result)}: {problem} "
            f"(traceback: {failed}; mend the cell or what it calls, then run the command again)"
        )
    return clean(result, keep_parameters={**DEFAULTS, **parameters} != DEFAULTS)


def clean(nb: Any, keep_parameters: bool = False) -> Any:
    """``nb`` without what differs between two executions: timings, addresses, progress bars, random ids.

    Args:
        nb: an executed notebook; changed in place and returned.
        keep_parameters: keep the cell in which papermill set the parameters.
    """
    nb.metadata = type(nb.metadata)(kernelspec=dict(KERNEL), language_info={"name": "python"})
    kept = []
    for cell in nb.cells:
        tags = cell.metadata.get("tags", [])
        if "end-marker" in tags or ("injected-parameters" in tags and not keep_parameters):
            continue
        if "injected-parameters" in tags:
            cell.id = "injected-parameters"
        for key in ("papermill", "execution", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in map(_clean_output, _merge_streams(cell.outputs)) if out]
        kept.append(cell)
    nb.cells = kept
    for count, cell in enumerate((c for c in kept if c.cell_type == "code" and c.source.strip()), start=1):
        cell.execution_count = count
        for out in cell.outputs:
            if out.output_type == "execute_result":
                out.execution_count = count
    nb.nbformat, nb.nbformat_minor = 4, 5
    return nb


def _merge_streams(outputs: list[Any]) -> list[Any]:
    # Where a stream is cut into messages depends on the clock.
    merged: list[Any] = []
    for out in outputs:
        if merged and out.output_type == "stream" == merged[-1].output_type and out.name == merged[-1].name:
            merged[-1].text += out.text
        else:
            merged.append(out)
    return merged


def _clean_output(out: Any) -> Any | None:
    if out.output_type == "stream":
        out.text = _stable(NOISE.sub("", out.text) if out.name == "stderr" else out.text)
        return out if out.text.strip() else None
    data = out.get("data", {})
    if (
        "text/html" in data
    ):  # a widget's model lives in a kernel; its static form stays, and a figure's mark without its box
        data.pop("application/vnd.jupyter.widget-view+json", None)
        data["text/html"] = strip("".join(data["text/html"]))
    for mime, value in data.items():
        if isinstance(value, str) and mime.startswith("text/plain"):
            data[mime] = _stable(value)
    return out


def _stable(text: str) -> str:
    for pattern, replacement in UNSTABLE:
        text = pattern.sub(replacement, text)
    return text


def _failing(nb: Any) -> int:
    """The number, from 1, of the cell that failed: the last that was started, counted as a reader counts."""
    added = {"injected-parameters", "papermill-error-cell-tag"}  # by papermill
    seen = [c for c in nb.cells if not added & set(c.metadata.get("tags", []))]
    started = [number for number, c in enumerate(seen, 1) if c.metadata.get("papermill", {}).get("start_time")]
    return max(started, default=1)


@contextmanager
def _same_everywhere() -> Iterator[None]:
    """The kernel inherits the environment: with fixed hashes a set has the same order each time, and with one thread a
    sum has the same last digits on two cores as on sixty-four. One thread is also the faster choice where something
    else keeps a core
    busy: OpenMP's threads wait for each other by spinning, and a page of seconds took minutes.
    """
    fixed = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with mock.patch.dict(os.environ, fixed):
        yield

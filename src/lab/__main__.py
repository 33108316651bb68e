"""``python -m lab``: everything the Makefile does, and more, as subcommands."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from .runs.profiles import PROFILES, check_profile
from .utils.errors import LabError, plain_output
from .utils.files import ROOT, build_folder, clear, hand_on_folders, variable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; a mistake the user can mend is one line on stderr and exit status 1."""
    plain_output()
    options = _parser().parse_args(arguments)
    try:
        hand_on_folders()
        status = options.run(options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, `head` for instance, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LabError, ValueError, OSError) as e:
        if variable("LAB_TRACEBACK"):
            raise
        print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """A mistake in the command line is one line too; by custom its exit status is 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m lab",
        description="Build, test, re-execute and extend the book. Set LAB_TRACEBACK=1 to see where an error comes "
        "from, LAB_QUICK=train to train the quick runs whose results came along.",
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], int | None], help: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help)
        added.set_defaults(run=run)
        return added

    book = verb("book", _book, "execute what changed at profile quick, and build the pages")
    book.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    book.add_argument("--jobs", type=int, default=1, help="chapters executed side by side (default: %(default)s)")

    chapter = verb("chapter", _chapter, "execute one chapter with papermill at any profile")
    chapter.add_argument("chapter", help="number or name, such as 04")
    chapter.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default: %(default)s)")
    chapter.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    chapter.add_argument("--seed", type=int, default=0, help="first seed (default: %(default)s)")
    chapter.add_argument(
        "--budget", type=_seconds, help="compute its runs for this long, go on at the next call: 9m, 2h"
    )
    chapter.add_argument("--output", help="the executed notebook (default: a file under _build/chapters)")

    record = verb("record", _record, "compute the runs behind the tables that are not recorded yet")
    record.add_argument("--experiment", action="append", help="only this declaration; may be given several times")
    record.add_argument("--chapter", type=int, help="only the declarations of this chapter")
    record.add_argument("--profile", default="short", help=f"one of {', '.join(PROFILES)} (default: %(default)s)")
    record.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    record.add_argument("--workers", type=int, help="runs side by side (default: one a core, or one on a GPU)")
    record.add_argument("--budget", type=_seconds, help="stop within this time and go on at the next call: 90s, 9m, 2h")
    record.add_argument(
        "--run", dest="only", action="append", metavar="ID", help="only this run; may be given several times"
    )
    record.add_argument("--cluster", type=Path, metavar="SITE.py", help="compute on the machines that this file names")
    record.add_argument("--list", action="store_true", help="only say what is recorded and what is missing")

    intervals = verb(
        "intervals", _intervals, "state the interval over seeds that re-executed figures are checked against"
    )
    intervals.add_argument("--experiment", default="pruning", help="which declaration (default: %(default)s)")
    intervals.add_argument(
        "--profile", default="quick", help="whose runs, which must be recorded (default: %(default)s)"
    )

    recheck = verb("recheck", _recheck, "evaluate the shipped models again and compare with their records")
    recheck.add_argument("--models", help="folder of packed models (default: data/models)")
    recheck.add_argument("--data", help="cifar10 or cifar10-mini (default: the full set if it is there)")
    recheck.add_argument("--limit", type=int, help="only the first so many models")

    ship = verb("ship", _ship, "pack recorded runs' small models into data/models")
    ship.add_argument("runs", nargs="*", help="ids (default: every one that is small enough)")

    data = verb(
        "data",
        _data,
        "bring a data set: cifar10, cifar100; tiny-imagenet-32, multi30k, iwslt14 (--from); or rebuild the embedded "
        "cifar10-mini",
    )
    data.add_argument("name", help="cifar10, cifar10-mini, cifar100, tiny-imagenet-32, multi30k or iwslt14")
    data.add_argument("--from", dest="folder", help="take it from this folder instead of the network")

    refresh = verb("refresh", _refresh, "re-execute chapters in place, to commit new outputs")
    refresh.add_argument("chapters", nargs="*", help="numbers or names (default: all)")

    test = verb("test", _test, "run all tests, the notebooks' among them; further words go to pytest")
    test.add_argument(
        "words", nargs=argparse.REMAINDER, help="passed to pytest, for instance tests/test_relax.py -k beta"
    )

    serve = verb("serve", _serve, "serve the built book on this machine")
    serve.add_argument("--port", type=int, default=8000, help="(default: %(default)s)")

    verb("lab", _lab, "open JupyterLab on the chapters")
    clean = verb("clean", _clean, "delete what can be built again; unfinished recordings and trained networks are kept")
    clean.add_argument(
        "--all", action="store_true", help="checkpoints of unfinished recordings and trained networks too"
    )
    return parser


def _book(options: argparse.Namespace) -> None:
    from . import book

    book.build(device=options.device, jobs=options.jobs)


def _chapter(options: argparse.Namespace) -> None:
    from . import book
    from .training import pick_device

    pick_device(options.device)
    if options.budget is not None:
        os.environ["LAB_UNTIL"] = str(time.monotonic() + options.budget)
    output = book.execute(options.chapter, check_profile(options.profile), options.device, options.seed, options.output)
    print(f"The executed chapter: {output}")


def _record(options: argparse.Namespace) -> None:
    from . import runs
    from .runs import runner

    names = runner.experiments(options.chapter, options.experiment)
    wanted = runner.declared(names, check_profile(options.profile))
    where = f"{', '.join(names)}, profile {options.profile}"
    if options.only:
        if unknown := set(options.only) - {run.id for run in wanted}:
            raise LabError(f"no run {sorted(unknown)[0]} in {where}: see --list")
        wanted = [run for run in wanted if run.id in options.only]
    missing = [run for run in wanted if runs.find(run) is None]
    speaks = os.environ.get("RANK", "0") == "0"  # one of the processes of torchrun
    if speaks:
        print(f"{where}: {len(wanted) - len(missing)} of {len(wanted)} runs are recorded")
    if options.list:
        missing_ids = {run.id for run in missing}
        for run in wanted:
            print(f"  {'missing ' if run.id in missing_ids else 'recorded'} {run.id} {run.experiment} {run.label()}")
    elif missing:
        records = runner.work(missing, options.device, options.workers, budget=options.budget, cluster=options.cluster)
        if speaks:
            for record in records.values():
                if record["state"] == "diverged":
                    print(f"  {record['id']} diverged: {record['error']}")
            left = len(missing) - len(records)
            place = runs.quick_runs() if options.profile == "quick" else runs.recorded_runs()
            print(f"recorded {len(records)} runs under {place}" + (f"; {left} are left" if left else ""))


def _seconds(text: str) -> float:
    """``"90"``, ``"90s"``, ``"9m"`` or ``"2h"`` in seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 90s, 9m or 2h")
    return seconds


def _recheck(options: argparse.Namespace) -> int | None:
    from .runs import recheck

    return recheck.main(options)


def _ship(options: argparse.Namespace) -> int | None:
    from .runs import recheck

    return recheck.ship_main(options)


def _intervals(options: argparse.Namespace) -> None:
    from . import runs
    from .runs import intervals

    wanted = runs.declaration(options.experiment).runs(check_profile(options.profile))
    records = [record for run in wanted if (record := runs.find(run))]
    for name, interval in intervals.state(records).items():
        print(f"{name}: [{interval['low']}, {interval['high']}] from {interval['seeds']} seeds")


def _data(options: argparse.Namespace) -> None:
    from . import datasets

    print(f"{options.name}: {datasets.fetch(options.name, folder=options.folder)}")


def _refresh(options: argparse.Namespace) -> None:
    from . import book

    for path in book.refresh(options.chapters or None):
        print(f"refreshed {path}")


def _test(options: argparse.Namespace) -> int:
    notebooks = ["chapters", "--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval.cfg"]
    side_by_side = ["-n", "3", "--dist", "loadscope"]  # on two cores: some tests wait for processes or for a clock
    words = options.words or ["tests", *notebooks, *side_by_side]
    return subprocess.call([sys.executable, "-m", "pytest", *words], cwd=ROOT)


def _serve(options: argparse.Namespace) -> None:
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    site = build_folder() / "html"
    if not (site / "index.html").exists():
        raise LabError(f"{site} holds no book yet: run `python -m lab book` first")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", options.port), partial(Handler, directory=str(site)))
    except (OSError, OverflowError) as e:
        why = e.strerror if isinstance(e, OSError) else "no port has that number"
        raise LabError(f"cannot serve on port {options.port} ({why}): choose another with --port, such as 8001") from e
    with server:
        print(f"The book: http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def _lab(options: argparse.Namespace) -> int:
    return subprocess.call([sys.executable, "-m", "jupyterlab", "--notebook-dir", str(ROOT / "chapters")])


def _clean(options: argparse.Namespace) -> None:
    if build_folder().exists():
        # hours of unfinished recordings, and what finished ones ended with
        keep = () if options.all else ("checkpoints", "models")
        if left := clear(build_folder(), keep):
            print(f"left in {build_folder()}, for it is not the lab's: {', '.join(left)}")


if __name__ == "__main__":
    sys.exit(main())

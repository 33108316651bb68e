"""Nothing here runs what a file says: no pickle is read, no data is evaluated, in any script, test or chapter."""

import ast
import hashlib
import json
import pickle

import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager

from lab import datasets
from lab.utils.errors import LabError
from lab.utils.files import ROOT

FOLDERS = ("src", "chapters", "benchmarks", "tests")
MODULES = {"dill", "joblib", "shelve", "cloudpickle", "jsonpickle", "marshal", "hickle"}
"""Not even imported: reading is what they are for."""

CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "_pickle.load", "_pickle.loads", "_pickle.Unpickler",
    "pandas.read_pickle", "pandas.read_hdf", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load",
    "yaml.full_load_all",
    "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load", "torch.hub.load_state_dict_from_url",
    "eval", "exec",
}  # fmt: skip
"""Neither called nor named: most read pickles or run a file's code by themselves, the last two run any text."""

READERS = {"torchvision.datasets.CIFAR10", "torchvision.datasets.CIFAR100"}
"""Not called: they unpickle their files."""

ALLOWED = {
    ("tests/test_snippets.py", "exec"): "runs the code that README and the start page offer: this repository's own",
    ("tests/test_integrations.py", "exec"): "runs the code that docs/fine-tuning.md offers",
    ("tests/test_knobs.py", "eval"): "runs the line that a panel offers to copy",
    ("src/lab/training/scores.py", "torch.jit.load"): "only a file whose SHA-256 is that of the published network",
    ("src/lab/datasets/cifar100.py",
    "torchvision.datasets.CIFAR100"): "only files whose MD5 are those of the published ones",
    ("tests/test_training.py", "exec"): "what the trap in a crafted file would run",
    ("tests/test_unpickling.py", "pickle.loads"): "shows that its own trap would spring",
}  # fmt: skip


def findings(code: str) -> list[str]:
    """Dotted names of what ``code`` uses and should not, each as often as it does."""
    tree = ast.parse(code)
    known, uses, fine = {}, [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            uses += [a.name for a in node.names if a.name.partition(".")[0] in MODULES]
            known |= {
                a.asname or a.name.partition(".")[0]: a.name if a.asname else a.name.partition(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            module = "torchvision" if node.module == "lab.utils.vision" else node.module or ""
            uses += [module] if module.partition(".")[0] in MODULES else []
            uses += [
                f"{module}.*" for a in node.names if a.name == "*" and module in {c.rpartition(".")[0] for c in CALLS}
            ]
            known |= {a.asname or a.name: module if a.name == module else f"{module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, given = dotted(node.func, known), {k.arg: k.value for k in node.keywords}
            if name in ("importlib.import_module", "__import__") and node.args:
                module = getattr(node.args[0], "value", "")
                uses += [module] if module in MODULES | {"pickle", "_pickle"} else []
            elif name == "getattr" and len(node.args) > 1:
                name = f"{dotted(node.args[0], known)}.{getattr(node.args[1], 'value', '')}"
                uses += [name] if name in CALLS | {"torch.load", "numpy.load", "yaml.load"} else []
            elif (
                (name == "torch.load" and literal(given.get("weights_only")) is True)
                or (
                    name == "numpy.load"
                    and None not in given
                    and literal(given.get("allow_pickle", False)) is False
                    and len(node.args) < 3
                )
                or (
                    name in ("yaml.load", "yaml.load_all")
                    and dotted((node.args[1:] or [given.get("Loader")])[0], known) in SAFE
                )
            ):
                fine.add(node.func)
            uses += [name] if name in READERS else []
    for node in ast.walk(tree):
        name = dotted(node, known) if isinstance(node, ast.Attribute | ast.Name) else ""
        if name in CALLS or (name in ("torch.load", "numpy.load", "yaml.load", "yaml.load_all") and node not in fine):
            uses += [name] if isinstance(node.ctx, ast.Load) else []
    return uses


SAFE = {"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"}


def dotted(node: ast.AST | None, known: dict[str, str]) -> str:
    """``np.load`` as ``numpy.load``; empty for what is no dotted name."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value, known)
        return f"{before}.{node.attr}".removeprefix("builtins.") if before else ""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    return ""


def literal(value: object) -> object:
    return value.value if isinstance(value, ast.Constant) else value


def sources():
    """Every script and test, and the code of every chapter, as (path, text)."""
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), file.read_text("utf-8")
        for file in sorted((ROOT / folder).rglob("*.ipynb")):
            if ".ipynb_checkpoints" not in file.parts:
                cells = json.loads(file.read_text("utf-8"))["cells"]
                for cell in (c for c in cells if c["cell_type"] == "code"):
                    yield (
                        file.relative_to(ROOT).as_posix(),
                        TransformerManager().transform_cell("".join(cell["source"])),
                    )


def test_nothing_unpickles_and_nothing_evaluates_data():
    uses, looked = set(), 0
    for path, code in sources():
        looked += 1
        uses |= {(path, name) for name in findings(code)}
    assert looked > 200
    assert uses - set(ALLOWED) == set(), "read it as JSON, safetensors or torch.load(..., weights_only=True)"
    assert set(ALLOWED) - uses == set(), "this exception is needed no more: delete it"


BAD = [
    "import pickle; pickle.load(open('f', 'rb'))",
    "import pickle as p\nreader = p.loads",
    "from pickle import loads as read\nread(b'')",
    "import pickle\nclass Reader(pickle.Unpickler): pass",
    "getattr(__import__('pickle'), 'loads')(b'')",
    "import pickle\ngetattr(pickle, 'loads')(b'')",
    "from pickle import *\nloads(b'')",
    "import importlib; importlib.import_module('pickle').loads(b'')",
    "import torch; torch.load('f')",
    "import torch; torch.load('f', weights_only=False)",
    "import torch; options = {}; torch.load('f', **options)",
    "import torch\nread = torch.load\nread('f')",
    "from torch import load\nload('f', map_location='cpu')",
    "import torch; torch.hub.load('somebody/net', 'net')",
    "import torch; torch.jit.load('f')",
    "import numpy as np; np.load('f', allow_pickle=True)",
    "import numpy as np; np.load('f', None, True)",
    "import numpy as np\nyes = True\nnp.load('f', allow_pickle=yes)",
    "import joblib",
    "from dill import loads",
    "import shelve",
    "import cloudpickle as pickle",
    "import marshal",
    "import yaml; yaml.load('a: 1')",
    "import yaml; yaml.load('a: 1', Loader=yaml.Loader)",
    "import yaml; yaml.load('a: 1', yaml.UnsafeLoader)",
    "import yaml; yaml.unsafe_load('a: 1')",
    "import pandas as pd; pd.read_pickle('f')",
    "from lab.utils.vision import torchvision\ntorchvision.datasets.CIFAR10('f')",
    "eval(open('f').read())",
    "exec('x = 1')",
    "import builtins; builtins.eval('1')",
    "list(map(eval, ['1']))",
]
GOOD = [
    "import pickle; pickle.dumps({})",
    "import torch; torch.load('f', map_location='cpu', weights_only=True)",
    "from torch import load\nload('f', weights_only=True)",
    "import numpy as np; np.load('f'), np.load('f', allow_pickle=False)",
    "import yaml; yaml.safe_load('a: 1'), yaml.load('a: 1', Loader=yaml.SafeLoader), yaml.load('a: 1', "
    "yaml.CSafeLoader)",
    "import json; json.load(open('f'))",
    "net.eval(); page.evaluate('1'); source.load('f'); eval_loss = 3",
    "import ast; ast.literal_eval('1')",
]


@pytest.mark.parametrize("code", BAD)
def test_each_way_to_run_a_file_is_found(code):
    assert findings(code)


@pytest.mark.parametrize("code", GOOD)
def test_what_only_reads_is_left_alone(code):
    assert not findings(code)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_an_altered_cifar100_is_refused_before_it_is_unpickled(name, tmp_path, monkeypatch):
    from lab.utils.vision import torchvision

    kind = torchvision.datasets.CIFAR100
    folder = tmp_path / "cifar100" / kind.base_folder
    folder.mkdir(parents=True)
    rows = {"data": torch.zeros(2, 3072, dtype=torch.uint8).numpy(), "fine_labels": [0, 1]}
    contents = {"train": rows, "test": rows, "meta": {"fine_label_names": ["a", "b"]}}
    contents = {each: pickle.dumps(content) for each, content in contents.items()}
    digests = {each: hashlib.md5(content).hexdigest() for each, content in contents.items()}
    for split in ("train", "test"):
        monkeypatch.setattr(kind, f"{split}_list", [[split, digests[split]]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": digests["meta"]})
    for each, content in contents.items():
        (folder / each).write_bytes(content)
    assert len(datasets.load("cifar100", "train", tmp_path)) == 2
    trap = pickle.dumps(Trap(tmp_path / "was run"))
    (folder / name).write_bytes(trap)
    with pytest.raises(LabError, match="altered"):
        datasets.load("cifar100", "train", tmp_path)
    assert not (tmp_path / "was run").exists()
    pickle.loads(trap)  # had it been read
    assert (tmp_path / "was run").is_dir()

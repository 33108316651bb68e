"""The code that README and the start page offer a reader to copy: every block runs, and does what its comments say."""

import itertools
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import principled
from lab.utils.files import ROOT
from principled.files import precisions, sizes

BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)


def blocks(page):
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


class Network(nn.Module):
    """Somebody's network: three equal convolutions that can share, and no size that suits the book."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 3)
        self.middle = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))

    def forward(self, x):
        x = self.first(x)
        for layer in self.middle:
            x = x + F.relu(layer(x))
        return self.last(x.mean((2, 3)))


@pytest.fixture
def given(tmp_path, monkeypatch):
    """What the blocks leave to the reader: a network, data, a loss, a loop."""
    monkeypatch.chdir(tmp_path)
    data = [(torch.randn(16, 1, 5, 5), torch.randint(3, (16,))) for _ in range(30)]

    def train(relaxed):
        optimizer = torch.optim.SGD(relaxed.parameters(), lr=0.1)
        for x, y in data:
            optimizer.zero_grad()
            (F.cross_entropy(relaxed(x), y) + 0.01 * relaxed.penalty()).backward()
            optimizer.step()

    def loss(net, batch):
        return F.cross_entropy(net(batch[0]), batch[1])

    names = {name: getattr(principled, name) for name in principled.__all__}
    own = {
        "batches": data,
        "total_steps": len(data),
        "train": train,
        "loss": loss,
    }
    own |= {"stream": itertools.cycle(data), "cross_entropy": F.cross_entropy}
    return {"torch": torch, **names, **own}


def run(block, names):
    names |= dict.fromkeys(("your_network", "my_network"), Network())  # each method takes a network of its own
    assert block.count("steps=(5000, 2000)") <= 1  # the one thing that a test need not wait for
    exec(compile(block.replace("steps=(5000, 2000)", "steps=(30, 10)"), "the page", "exec"), names)
    return names


def test_the_start_page_has_ten_lines_for_each_method(given):
    snippets = blocks("book/index.md")
    assert len(snippets) == 4
    for block in snippets:
        code = [line for line in block.splitlines() if line.strip() and not line.startswith(("import", "from"))]
        assert len(code) <= 10
    imported = {"torch", "cross_entropy", *principled.__all__, "loss", "train", "stream"}
    bare = {name: value for name, value in given.items() if name not in imported}  # a block imports what it uses
    done = [run(block, dict(bare)) for block in snippets]
    weights = sum(p.numel() for p in Network().parameters())
    x = torch.randn(2, 1, 5, 5)
    assert isinstance(done[0]["small"], principled.Folded)
    assert done[0]["small"](x).shape == done[1]["sparse"](x).shape == (2, 3)
    assert type(done[1]["sparse"]) is Network
    assert (torch.cat([m.weight.flatten() for m in done[1]["sparse"].middle]) == 0).any()
    assert done[2]["done"].precision
    assert 0 < done[2]["file"].stat().st_size < 4 * weights
    assert set(precisions(done[2]["file"])) == set(done[2]["done"].precision)
    assert isinstance(done[3]["optimizer"], principled.AvaGrad)


def test_the_readme_runs(given):
    first, others, after, files = blocks("README.md")
    sparse = run(first, dict(given))["sparse"]
    assert type(sparse) is Network
    pytest.importorskip("onnxscript")
    run(after, dict(given) | {"sparse": sparse, "x": torch.randn(1, 1, 5, 5)})
    assert Path("net.onnx").is_file()
    loop, smol, avagrad = (run(part, dict(given)) for part in others.split("\n\n"))  # one method each
    assert loop["loop"].program.steps
    assert smol["done"].precision
    assert isinstance(avagrad["optimizer"], principled.AvaGrad)
    run(files, dict(given))
    assert sizes("net.principled").rows[0].name == "first.weight"


def test_every_block_of_the_start_page_is_copied_without_a_prompt():
    for page in ("book/index.md", "README.md"):
        assert blocks(page)
        assert not [block for block in blocks(page) if ">>>" in block or "..." in block.replace("# ...", "")]

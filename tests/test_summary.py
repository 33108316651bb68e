"""The table by layer says what is in the network: counted by hand, on networks of every kind."""

import pytest
import torch
from small_network import Net
from torch import nn

from principled import ContinuousMask, Relaxed, Smol, SoftSharing, fix_precision, fold, summary
from principled.sharing import Templates
from principled.summary import REST

MIDDLE = [f"middle.{i}.0.weight" for i in range(3)]
IMAGE = torch.ones(1, 1, 6, 6)


def by_layer(table):
    return {row.layer: row for row in table.rows}


def test_a_plain_network_is_counted():
    rows = by_layer(summary(Net(), IMAGE))
    assert list(rows) == ["first.weight", *MIDDLE, "last.weight", REST]
    first = rows["first.weight"]
    assert (first.kind, first.weights, first.stored, first.zeros, first.bits) == ("Conv2d", 36, 36, 0, 32)
    assert [rows[name].multiplications for name in ("first.weight", MIDDLE[0], "last.weight")] == [
        36 * 36, 144 * 36, 40,
    ]  # fmt: skip
    assert rows[REST].stored == 4 + 3 * 8 + 10  # biases and normalisation


def test_the_total_is_the_number_of_parameters():
    net = Net()
    total = summary(net, IMAGE).total
    assert total.stored == total.weights == sum(p.numel() for p in net.parameters())
    assert total.multiplications == 36 * 36 + 3 * 144 * 36 + 40
    assert total.bits == 32


def test_zeros_of_a_mask_relaxed_and_hardened():
    relaxed = Relaxed(Net(), ContinuousMask())
    with torch.no_grad():
        relaxed.relaxations[0].s.copy_(torch.arange(36 + 3 * 144) - 36.0)  # all of the first layer is pruned
    for net in (relaxed, relaxed.harden()):
        rows = by_layer(summary(net, IMAGE))
        assert rows["first.weight"].zeros == 36
        assert rows["first.weight"].needed == 0
        assert rows[MIDDLE[0]].zeros == 0
        assert rows[MIDDLE[0]].needed == 144 * 36


def test_a_network_is_left_as_it_was():
    relaxed = Relaxed(Net(), ContinuousMask()).train()
    before = {name: tensor.clone() for name, tensor in relaxed.state_dict().items()}
    summary(relaxed, IMAGE)
    plain = Net().train()
    summary(plain, IMAGE)
    assert all(module.training for module in (*relaxed.modules(), *plain.modules()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in relaxed.state_dict().items())


def quantised():
    """Bits 1, 2, 3, 4 for the filters of the first layer, 8 for all else."""
    relaxed = Relaxed(Net(), Smol(granularity="filter"))
    with torch.no_grad():
        p = torch.tensor([1.0 + 1e-9, 2, 3, 4], dtype=torch.float64)
        relaxed.relaxations[0].s[:4] = -torch.log(2 ** (p - 1) - 1).float().clamp(max=80)
    return relaxed


@pytest.mark.parametrize("fixed", [False, True])
def test_bits_of_a_quantised_network(fixed):
    net = fix_precision(quantised()) if fixed else quantised()
    rows = by_layer(summary(net))
    assert rows["first.weight"].bits == (1 + 2 + 3 + 4) / 4
    assert rows[MIDDLE[1]].bits == 8
    assert rows[REST].bits == 32


def test_bits_of_a_hardened_network_are_given_or_the_dtypes():
    fixed = fix_precision(quantised())
    plain, precision = fixed.harden(), fixed.relaxations[0].precision()
    assert by_layer(summary(plain))["first.weight"].bits == 32
    assert by_layer(summary(plain, precision=precision))["first.weight"].bits == 2.5
    assert by_layer(summary(plain.bfloat16()))["first.weight"].bits == 16


def shared():
    relaxed = Relaxed(Net(), SoftSharing(templates=2))
    with torch.no_grad():
        (alpha,) = relaxed.relaxations[0].alpha.values()
        alpha.copy_(torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 1.0]]))
    return relaxed


def test_templates_are_stored_and_layers_are_mixtures():
    net = shared()
    rows = by_layer(summary(net, IMAGE))
    templates = rows["templates 4x4x3x3"]
    assert templates.shared == tuple(MIDDLE)
    assert templates.stored == 2 * 144
    assert rows[MIDDLE[0]].shared == (MIDDLE[1], MIDDLE[2])
    assert rows[MIDDLE[0]].stored == 0
    assert rows[MIDDLE[0]].multiplications == 144 * 36
    assert summary(net).total.stored == sum(p.numel() for p in net.parameters())


def test_a_folded_layer_is_kept_once():
    folded = fold(shared(), 0.9)
    rows = by_layer(summary(folded, IMAGE))
    assert [rows[name].stored for name in MIDDLE] == [144, 0, 144]
    assert rows[MIDDLE[0]].shared == (MIDDLE[1],)
    assert rows[MIDDLE[1]].shared == (MIDDLE[0],)
    assert rows[MIDDLE[2]].shared == ()
    assert rows[MIDDLE[1]].multiplications == 144 * 36
    assert summary(folded).total.stored == sum(p.numel() for p in folded.parameters())


def test_a_stack_of_three():
    net = Relaxed(shared(), ContinuousMask(where=Templates), Smol(where=Templates, zero=True))
    with torch.no_grad():
        net.relaxations[0].s[:144] = -1.0  # the first template goes
    rows = by_layer(summary(net, IMAGE))
    templates = rows["templates 4x4x3x3"]
    assert templates.zeros >= 144
    assert rows[MIDDLE[0]].zeros == 144
    assert templates.bits == pytest.approx(float(net.relaxations[1].allocate(masked(net))[NAME].double().mean()))
    assert templates.bits <= 4  # 0 for the first, at most 8 for the second


NAME = "relaxations.0.templates.4x4x3x3"


def masked(net):
    return net.relaxations[0].harden(dict(net.net.named_parameters()))


def test_a_mask_on_a_folded_network():
    net = Relaxed(fold(shared(), 0.9), ContinuousMask())
    with torch.no_grad():
        net.relaxations[0].s.fill_(-1.0)
    rows = by_layer(summary(net))
    assert rows[MIDDLE[1]].zeros == 144
    assert rows[MIDDLE[1]].stored == 0


def test_sharing_on_top_of_a_mask():
    masked_first = Relaxed(Net(), ContinuousMask(where=["first.weight"]))
    with torch.no_grad():
        masked_first.relaxations[0].s.fill_(-1.0)
    net = Relaxed(masked_first, SoftSharing({"all": [f"net.{name}" for name in MIDDLE]}, templates=1))
    rows = by_layer(summary(net))
    assert rows["first.weight"].zeros == 36
    assert rows[MIDDLE[0]].shared == (f"net.{MIDDLE[1]}", f"net.{MIDDLE[2]}")
    assert [rows[name].stored for name in (*MIDDLE, "templates all")] == [0, 0, 0, 144]


def test_bytes_are_those_of_the_file(tmp_path):
    files = pytest.importorskip("principled.files")
    for net in (Net(), shared(), fold(shared(), 0.9), fix_precision(quantised())):
        table = summary(net, packed=True)
        size = files.save(tmp_path / "net.principled", net).stat().st_size
        assert table.total.bytes == pytest.approx(size)
        assert all(row.bytes > 0 for row in table.rows if row.stored)
    few = by_layer(summary(fix_precision(quantised()), packed=True))
    assert few["first.weight"].bytes < by_layer(summary(Net(), packed=True))["first.weight"].bytes / 4


def test_tied_weights_and_attention_are_counted():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.mix = nn.MultiheadAttention(4, 2, batch_first=True)
            self.out = nn.Linear(4, 7, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, tokens):
            x = self.embed(tokens)
            return self.out(self.mix(x, x, x)[0])

    rows = by_layer(summary(Small(), {"tokens": torch.zeros(1, 5, dtype=torch.int64)}))
    assert rows["embed.weight"].shared == ("out.weight",)
    assert rows["embed.weight"].multiplications == 5 * 4 * 7
    assert rows["mix.in_proj_weight"].multiplications > 5 * 4 * 12  # and the products of attention itself


def test_text_html_and_frame_say_the_same():
    pd = pytest.importorskip("pandas")
    table = summary(shared(), IMAGE)
    frame = table.frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame.loc[MIDDLE[0], "weights"] == 144
    assert len(frame) == len(table.rows) == str(table).count("\n") - 1
    assert "middle.1.0.weight and 1 more" in str(table)
    assert "bytes" not in str(table)
    assert table._repr_html_().count("<tr>") == len(table.rows) + 2


def test_a_precision_for_no_weight_is_refused():
    with pytest.raises(ValueError, match="has no weight named 'nowhere'"):
        summary(Net(), precision={"nowhere": torch.ones(1, dtype=torch.int8)})

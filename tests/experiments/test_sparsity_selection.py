"""The rules of 4.3.4 by hand, and against the thesis's own counts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lab.datasets import thesis
from lab.experiments.sparsity.selection import (
    Point,
    best_performing,
    layer_zeros,
    matched_pairs,
    over_seeds,
    points,
    search_epochs,
    sparsest_matching,
    sparsest_within,
    sparsities,
    zeros,
)
from principled import ContinuousMask, Relaxed

SOME = [Point(0.5, 0.92), Point(0.8, 0.91), Point(0.9, 0.90), Point(0.95, 0.88), Point(0.99, 0.50)]


def test_the_rules_by_hand():
    assert sparsest_matching(SOME, 0.905) == Point(0.8, 0.91)
    assert sparsest_matching(SOME, 0.90) == Point(0.9, 0.90)  # no worse: equal counts
    assert best_performing(SOME) == Point(0.5, 0.92)
    assert sparsest_within(SOME, 0.90) == Point(0.95, 0.88)  # exactly two points less
    assert sparsest_within(SOME, 0.95) is None
    assert sparsest_matching([], 0.1) is best_performing([]) is None


def test_of_equals_the_sparser_or_the_more_accurate():
    assert best_performing([Point(0.5, 0.9), Point(0.7, 0.9)]).sparsity == 0.7
    assert sparsest_within([Point(0.5, 0.9), Point(0.5, 0.91)], 0.9).accuracy == 0.91


shares = st.floats(0, 1)


@given(st.lists(st.tuples(shares, shares), min_size=1), shares, st.floats(0, 0.1))
def test_nothing_allowed_is_sparser(pairs, dense, loss):
    some = [Point(s, a) for s, a in pairs]
    sparsest = sparsest_within(some, dense, loss)
    allowed = [p.sparsity for p in some if p.accuracy >= dense - loss]
    assert (sparsest.sparsity if sparsest else None) == max(
        allowed, default=None
    ) or sparsest.accuracy < dense - loss + 1e-8
    assert best_performing(some).accuracy == max(a for _, a in pairs)


def test_seeds_are_averaged_by_method_and_round():
    some = [
        Point(0.5, 0.9, 1, "a", ("x",)),
        Point(0.6, 0.8, 1, "a", ("y",)),
        Point(0.6, 0.7, 2, "a"),
        Point(0.1, 0.1, 1, "b"),
    ]
    first, second, third = over_seeds(some)
    assert (first.sparsity, first.accuracy, first.runs) == (pytest.approx(0.55), pytest.approx(0.85), ("x", "y"))
    assert (second.round, third.key) == (2, "b")


def test_points_of_records():
    method = {"name": "cs", "s_init": 0.0}
    config = {"method": method, "data": "cifar10"}
    ticket = {"id": "t", "config": config, "figures": {"accuracy": 0.3}}
    ticket["figures"] |= {f"{what}.round{r}": r / 10 for what in ("accuracy", "sparsity") for r in (1, 2, 10)}
    assert [(p.round, p.accuracy) for p in points(ticket)] == [(1, 0.1), (2, 0.2), (10, 1.0)]
    one = {"id": "o", "config": config, "figures": {"accuracy": 0.3, "sparsity": 0.9}}
    assert points(one) == [Point(0.9, 0.3, 1, points(ticket)[0].key, ("o",), chance=0.1)]


def test_points_that_are_compared_are_each_other_s_nearest_and_close():
    a = [Point(0.8, 0.5), Point(0.9, 0.5), Point(0.95, 0.5)]
    b = [Point(0.91, 0.4), Point(0.92, 0.4), Point(0.956, 0.4)]
    # 10 % kept against 9 %: a factor of 1.11; 5 % against 4.4 %: 1.14. 8 % has a nearer rival, 20 % has no partner
    assert matched_pairs(a, b) == [(a[1], b[0]), (a[2], b[2])]
    assert matched_pairs(b, a) == [(b[0], a[1]), (b[2], a[2])]  # the same rule for both sides
    assert matched_pairs([Point(0.95, 0.5)], [Point(0.97, 0.4)]) == matched_pairs(a, []) == []


def test_what_is_no_point_of_a_curve():
    assert [Point(s, a, chance=0.1).fault for s, a in ((0.0005, 0.9), (0.99, 0.12), (0.99, 0.13))] == [
        "prunes nothing", "at chance", "",
    ]  # fmt: skip


def test_epochs_are_the_thesis_s():
    facts = {name: thesis.fact(name).value for name in ("cs-runs", "cs-rounds", "ticket-epochs", "imp-rounds")}
    cs = search_epochs([int(facts["cs-rounds"] * facts["ticket-epochs"])] * int(facts["cs-runs"]))
    imp = search_epochs([int(facts["imp-rounds"] * facts["ticket-epochs"])])
    assert cs.sequential == thesis.fact("cs-epochs-sequential").value
    assert cs.parallel == thesis.fact("cs-epochs-parallel").value
    assert imp.sequential == imp.parallel == thesis.fact("imp-epochs").value
    with pytest.raises(ValueError, match="no run to count"):
        search_epochs([])


def test_zeros_of_the_arithmetic_and_of_the_mask_are_told_apart():
    net = Relaxed(nn.Linear(4, 1), ContinuousMask(where=nn.Linear))
    mask = net.relaxations[0]
    with torch.no_grad():
        mask.s.copy_(torch.tensor([1.0, -0.01, -0.2, -1.0]))
    mask.beta.fill_(200.0)
    shares = sparsities(net)
    assert shares.hardened == 0.75
    assert shares.exact == 0.25  # sigma(-200) is below the smallest float32, sigma(-40) is not
    hard = net.harden()
    assert zeros(hard, ["weight"]) == 0.75
    assert layer_zeros(nn.Sequential(hard), ["0.weight"]) == {"0": 0.75}

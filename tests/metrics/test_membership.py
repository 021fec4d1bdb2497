"""Oracles: closed forms, scikit-learn's ROC, DeLong's pairs counted one by one, models that remember all or nothing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn

from linfair.data import GroupedData
from linfair.ensemble import Ensemble
from linfair.metrics import membership
from linfair.metrics.membership import ATTACKS, attack, confidence, exposure, halves, leave_one_out, shadows
from linfair.models import build
from linfair.training import Schedule, fit

KINDS = sorted(ATTACKS)
SHORT = Schedule(epochs=40, optimizer="adamw", lr=3e-3)


def nearest(count: int = 16, n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Confidences of networks that score a class by minus the distance to its nearest training point."""
    x, y, inside = np.random.default_rng(1).normal(size=(n, 8)), np.arange(n) % 2, halves(n, count)
    away = np.linalg.norm(x[:, None] - x, axis=2)
    logits = [[-4 * away[:, one & (y == label)].min(1) for label in (0, 1)] for one in inside]
    return confidence(torch.tensor(np.array(logits)).movedim(1, -1), torch.tensor(y)).numpy(), inside


@given(st.lists(st.floats(-300, 300), min_size=3, max_size=3), st.integers(0, 2))
def test_confidence_is_the_logit_of_the_softmax(logits: list[float], label: int) -> None:
    """Oracle: the loss is log(1 + exp(-c))."""
    z, y = torch.tensor([logits], dtype=torch.float64), torch.tensor([label])
    loss = torch.nn.functional.cross_entropy(z, y).item()
    assert torch.nn.functional.softplus(-confidence(z, y)).item() == pytest.approx(loss, abs=1e-9)


def test_confidence_takes_an_ensemble_and_refuses_what_has_none() -> None:
    z, y = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(confidence(z, y)[2], confidence(z[2], y))
    assert confidence(z.bfloat16(), y).dtype == torch.float64
    for bad, labels in ((z[..., :1], y), (z * math.nan, y), (z, y + 1), (z, y[:2])):
        with pytest.raises(ValueError, match="classes|finite|labels"):
            confidence(bad, labels)


def test_lira_is_the_ratio_of_two_gaussians() -> None:
    """Oracle: scipy's densities, with variances of each point and with pooled ones."""
    draw = np.random.default_rng(0)
    seen, inside, target = draw.normal(size=(8, 6)), halves(6, 8), draw.normal(size=6)
    means, spreads, pooled = {}, {}, {}
    for side, mask in (("in", inside), ("out", ~inside)):
        own = [seen[mask[:, i], i] for i in range(6)]
        means[side], spreads[side] = (np.array([f(one) for one in own]) for f in (np.mean, lambda v: v.std(ddof=1)))
        pooled[side] = np.sqrt(sum(((v - v.mean()) ** 2).sum() for v in own) / sum(len(v) - 1 for v in own))
    for variance, s in (("point", spreads), ("global", pooled), ("auto", pooled)):
        wide = {side: s[side] * math.sqrt(1 + 1 / 4) for side in s}  # for the error of a mean of four
        ratio = norm(means["in"], wide["in"]).logpdf(target) - norm(means["out"], wide["out"]).logpdf(target)
        assert attack("lira_online", target, seen, inside, variance=variance) == pytest.approx(ratio)
        tail = -norm(means["out"], s["out"]).logsf(target)
        found = attack("lira_offline", target, seen, inside, variance=variance)
        assert found.argsort().tolist() == tail.argsort().tolist()


def test_lira_gives_points_their_own_variance_from_32_shadows_on_each_side_on() -> None:
    draw = np.random.default_rng(0)
    for count, same in ((62, "global"), (64, "point")):
        seen, inside = draw.normal(size=(count, 10)), halves(10, count)
        scores = attack("lira_online", seen[0], seen, inside)
        assert np.array_equal(scores, attack("lira_online", seen[0], seen, inside, variance=same))


def test_rmia_counts_the_population_points_that_are_less_raised() -> None:
    """Oracle: the double loop of its definition, online and with shadows on one side only."""
    draw = np.random.default_rng(0)
    seen, inside, target = draw.normal(size=(6, 7)), halves(7, 6), draw.normal(size=7)
    p = 1 / (1 + np.exp(-seen))
    mean = [(p[inside[:, i], i].mean() + p[~inside[:, i], i].mean()) / 2 for i in range(7)]
    ratio = 1 / (1 + np.exp(-target)) / mean
    wanted = [np.mean([one / other > 1 for other in ratio]) for one in ratio]
    assert attack("rmia", target, seen, inside) == pytest.approx(wanted)
    out = attack("rmia", target, seen[:1], np.zeros((1, 7), bool))
    ratio = 1 / (1 + np.exp(-target)) / (1.3 / 2 * p[0] + 0.7 / 2)  # as its authors write it
    assert out == pytest.approx([(one > ratio).mean() for one in ratio])
    assert np.isfinite(attack("rmia", target, seen[:1], np.ones((1, 7), bool))).all()


@pytest.mark.parametrize("kind", ["lira_online", "lira_offline", "rmia"])
def test_a_network_that_remembers_every_point_is_found_out(kind: str) -> None:
    seen, inside = nearest()
    row = exposure(leave_one_out(kind, seen, inside), inside).loc[0]
    assert row["auc"] > 0.95 and row["low"] > 0.9 and row["finding"]
    assert row["tpr_0.01"] > 0.3


def test_the_loss_alone_finds_out_less() -> None:
    seen, inside = nearest()
    table = [exposure(leave_one_out(kind, seen, inside), inside)["auc"][0] for kind in ("loss", "lira_online")]
    assert 0.5 < table[0] < table[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_learns_nothing_hides_every_member(kind: str) -> None:
    """The same logits whatever it is trained on: exactly 1/2, and nobody above a threshold that spares non-members."""
    logits = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    same = kind == "loss"  # which looks at no other network, so its points must be alike
    c = confidence(torch.ones(60, 4) if same else logits, torch.arange(60) % 4).numpy()
    inside = halves(60, 16)
    row = exposure(leave_one_out(kind, np.tile(c, (16, 1)), inside), inside).loc[0]
    assert row["auc"] == 0.5
    assert row["tpr_0.01"] == 0 and not row["finding"]


@pytest.mark.parametrize("kind", KINDS)
def test_memberships_of_other_networks_say_nothing(kind: str) -> None:
    seen, inside = nearest()
    wrong = halves(80, 16, seed=5)
    row = exposure(leave_one_out(kind, seen, wrong), wrong).loc[0]
    assert row["low"] <= 0.5 <= row["high"]


@pytest.mark.parametrize("kind", ["lira_online", "lira_offline", "rmia"])
@pytest.mark.parametrize("count", [4, 8])
def test_noise_is_no_exposure_with_few_shadows_either(kind: str, count: int) -> None:
    """A member of one of K networks is in one less of the others: that alone must not tell it."""
    inside = halves(2000, count)
    seen = np.random.default_rng(count).normal(size=inside.shape)
    row = exposure(leave_one_out(kind, seen, inside), inside, draws=1).loc[0]
    assert abs(row["auc"] - 0.5) < 3 * (row["high"] - row["low"]) / 4


def test_what_cannot_be_attacked_is_refused() -> None:
    seen, inside = np.zeros((3, 4)), np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0]], bool)
    with pytest.raises(ValueError, match="lira_online"):
        attack("lira", seen[0])
    with pytest.raises(ValueError, match="1 points"):
        attack("lira_online", seen[0], seen, inside)
    with pytest.raises(ValueError, match="two shadows"):
        attack("lira_offline", seen[0], seen[:2], np.eye(2, 4, dtype=bool) | np.eye(2, 4, 2, dtype=bool))
    with pytest.raises(ValueError, match="auto, point or global, got 'both'"):
        attack("loss", seen[0], variance="both")
    for target, others in ((seen, seen), (seen[0] * math.nan, seen), (seen[0], seen[:, :2])):
        with pytest.raises(ValueError, match="shape"):
            attack("rmia", target, others, inside)
    with pytest.raises(ValueError, match="shape"):
        exposure(np.zeros(3), np.zeros(4, bool))
    with pytest.raises(ValueError, match="K >= 1"):  # RMIA gave scores without any shadow
        leave_one_out("rmia", [[1.0, 2.0]], [[True, False]])


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=4, max_size=40))
def test_auc_and_true_positives_are_those_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    scores, inside = (np.array(one) for one in zip(*pairs, strict=True))
    if inside.all() or not inside.any():
        return
    row = exposure(scores, inside, draws=2).loc[0]
    assert row["auc"] == pytest.approx(roc_auc_score(inside, scores))
    false, true, _ = roc_curve(inside, scores, drop_intermediate=False)
    assert row["tpr_0.01"] == pytest.approx(true[false <= 0.01].max())
    assert row["tpr_0.01_low"] <= row["tpr_0.01"] <= row["tpr_0.01_high"]


def test_the_interval_of_one_target_is_delongs() -> None:
    """Oracle: his structural components, every pair of a member and a non-member counted."""
    draw = np.random.default_rng(0)
    scores, inside = draw.normal(size=50).round(1), np.arange(50) < 20
    pairs = (scores[inside][:, None] > scores[~inside]) + 0.5 * (scores[inside][:, None] == scores[~inside])
    error = math.sqrt(pairs.mean(1).var(ddof=1) / 20 + pairs.mean(0).var(ddof=1) / 30)
    row = exposure(scores, inside, draws=2).loc[0]
    assert (row["high"] - row["low"]) / 2 == pytest.approx(norm.ppf(0.975) * error)


def test_targets_on_the_same_points_are_not_independent() -> None:
    """The same target twice says no more than once."""
    draw = np.random.default_rng(0)
    scores, inside = draw.normal(size=50), np.arange(50) % 2 == 0
    one, two = (exposure(np.tile(scores, (k, 1)), np.tile(inside, (k, 1)), draws=50).loc[0] for k in (1, 2))
    for name in ("auc", "low", "high", "tpr_0.01", "tpr_0.01_low", "tpr_0.01_high"):
        assert two[name] == pytest.approx(one[name])


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Normal scores one apart: AUC Phi(1 / sqrt 2), and 1 - Phi(z - 1) above the threshold of a false positive rate."""
    draw, hits = np.random.default_rng(0), {"auc": 0, "tpr_0.01": 0}
    truth = {"auc": norm.cdf(1 / math.sqrt(2)), "tpr_0.01": norm.sf(norm.isf(0.01) - 1)}
    for _ in range(100):
        inside = np.arange(400) < 200
        row = exposure(draw.normal(size=400) + inside, inside, draws=100).loc[0]
        hits["auc"] += row["low"] <= truth["auc"] <= row["high"]
        hits["tpr_0.01"] += row["tpr_0.01_low"] <= truth["tpr_0.01"] <= row["tpr_0.01_high"]
    assert hits["auc"] >= 88 and hits["tpr_0.01"] >= 88, hits


def test_skewed_members_are_no_leak() -> None:
    """Two domains, 95 % of members and 50 % of non-members in the first, which the network finds easier.

    Whoever is in the first domain has score 1, whoever is not 0: pooled, the AUC is .95 / 2 + (.95 / 2 + .05 / 2) / 2 =
    .725 (as measured on CIFAR-10S) though no member is known from a non-member of its domain.
    """
    inside = np.repeat([True, False], 200)
    domain = np.concatenate([np.arange(200) >= 190, np.arange(200) >= 100]).astype(int)
    table = exposure(1.0 - domain, inside, domain, np.zeros(400, int), group_names=["easy", "hard"]).set_index("who")
    assert table["auc"]["all"] == pytest.approx(0.725)
    assert table["finding"].tolist() == [True, False, False, False]
    assert (table["auc"][1:] == 0.5).all()
    assert table["smallest"]["hard"] == 10 and "n < 20" in table["note"]["hard"]


def test_a_group_is_compared_within_its_classes() -> None:
    """Class 0 scores 1, class 1 scores 0, and members are mostly class 0: only the naive attack finds something."""
    labels = np.array([0] * 60 + [1] * 40 + [0] * 40 + [1] * 60)
    inside = np.repeat([True, False], 100)
    table = exposure(1.0 - labels, inside, np.zeros(200, int), labels, group_names=["g"], naive=True).set_index("who")
    assert table["auc"].to_dict() == pytest.approx({"all": 0.6, "all, within cells": 0.5, "g": 0.5, "g, naive": 0.6})


def test_cells_have_the_weights_that_are_stated() -> None:
    """Oracle: scikit-learn's AUC of each cell, with m n / (m + n)."""
    draw = np.random.default_rng(3)
    scores, inside, labels = draw.normal(size=90), draw.random(90) < 0.4, draw.integers(3, size=90)
    weights, areas = [], []
    for label in range(3):
        part = labels == label
        m, n = inside[part].sum(), (~inside[part]).sum()
        weights.append(m * n / (m + n))
        areas.append(roc_auc_score(inside[part], scores[part]))
    found = exposure(scores, inside, labels=labels, draws=2).set_index("who")["auc"]["all, within cells"]
    assert found == pytest.approx(np.average(areas, weights=weights))


@pytest.mark.parametrize("others", [1, 19, 20])
def test_few_non_members_are_no_finding(others: int) -> None:
    """Fifty members above all others but five: the AUC is 0.9; one non-member is as low as that by chance in 10 %."""
    scores = np.concatenate([np.arange(50.0), np.full(others, 4.5)])
    for swapped in (False, True):
        inside = (np.arange(50 + others) < 50) ^ swapped
        row = exposure(-scores if swapped else scores, inside, draws=2).loc[0]
        assert row["auc"] == 0.9 and row["low"] > 0.5 and row["smallest"] == others
        assert row["finding"] == (others == 20)
        name = "members" if swapped else "non-members"
        assert (f"n < 20 {name} in a cell" in row["note"]) == (others < 20)


def test_a_group_without_members_has_no_number() -> None:
    table = exposure(np.arange(4.0), np.array([True, False, False, False]), np.array([0, 0, 1, 1]), draws=2)
    row = table.set_index("who").loc["1"]
    assert math.isnan(row["auc"]) and "no cell" in row["note"] and not row["finding"]


def test_a_perfect_attack_still_has_an_interval() -> None:
    row = exposure(np.arange(10.0), np.arange(10) >= 5, draws=20).loc[0]
    assert row["auc"] == 1 and row["low"] == pytest.approx(membership.wilson(1.0, 5)[0]) and row["tpr_0.01_low"] < 0.6


@given(st.integers(2, 40), st.integers(1, 9), st.data())
def test_every_network_and_every_point_has_its_share(n: int, count: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, n - 1))
    inside = halves(n, count, size=size)
    assert (inside.sum(1) == size).all() and np.ptp(inside.sum(0)) <= 1
    assert np.array_equal(inside, halves(n, count, size=size))


def test_what_one_network_has_says_nothing_of_another() -> None:
    """Halves of complementary pairs would share nothing: two random halves share half of theirs."""
    inside = halves(1000, 16)
    shared = (inside[:, None] & inside).sum(2)[~np.eye(16, dtype=bool)]
    assert abs(shared.mean() - 500 * 7 / 15) < 1 and shared.min() > 180  # 7 of a point's 15 others hold it too


def test_shadows_are_trained_on_their_own_part_alone(digits: GroupedData) -> None:
    """Oracle: a training that notes what it was given; the networks know their own images better."""
    given = []

    def train(sets: list[GroupedData], seeds: list[int]) -> nn.Module:
        given.append((sets, seeds))
        networks = [build("mlp", digits.input_shape, digits.classes, width=32, seed=seed) for seed in seeds]
        model = Ensemble(networks) if len(sets) > 1 else networks[0]
        fit(model, sets if len(sets) > 1 else sets[0], schedule=SHORT, seeds=seeds, progress=False)
        return model

    seen, inside = shadows(train, digits, 5, at_once=4)
    pool = digits.splits["train"]
    assert seen.shape == inside.shape == (5, len(pool))
    assert [len(sets) for sets, _ in given] == [4, 1]
    assert [seed for _, seeds in given for seed in seeds] == [1000, 1001, 1002, 1003, 1004]
    for one, part in zip([one for sets, _ in given for one in sets], inside, strict=True):
        assert set(one.splits) == {"train"} and torch.equal(one.splits["train"].x, pool.x[torch.from_numpy(part)])
    assert seen[inside].mean() > seen[~inside].mean()


def test_halves_of_nothing_are_refused() -> None:
    for n, count, size in ((1, 2, None), (4, 0, None), (4, 2, 4), (4, 2, 0)):
        with pytest.raises(ValueError, match=str(count)):
            halves(n, count, size=size)

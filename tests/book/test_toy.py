"""The toy study: masks counted by hand, the 100 % network against plain ReLU training, accuracies against a loop."""

import numpy as np
import pandas as pd
import pytest
import torch
from linfair_book import toy
from scipy import stats
from torch import nn

from linfair import data, gates
from linfair.training import Schedule, fit, supervised

SEEDS = (0, 1, 2)
SMALL = {"seeds": SEEDS, "budgets": (1.0, 0.5, 0.1, 0.0), "steps": 15, "progress": False}


@pytest.fixture(scope="module")
def study(one_thread):
    return toy.train(**SMALL)


def alphas(network):
    return [gate.alpha.detach() for gate in gates.sites(network).values()]


def test_every_layer_keeps_exactly_the_rounded_share_of_its_units(study):
    for (_, budget), network in study.networks.items():
        layers = alphas(network)
        assert [int(alpha.sum()) for alpha in layers] == [round(16 * budget)] * 2
        assert all(set(alpha.tolist()) <= {0.0, 1.0} for alpha in layers)
        assert not any(gate.alpha.requires_grad for gate in gates.sites(network).values())


def test_masks_of_a_seed_are_nested_and_differ_between_seeds_and_layers(study):
    for seed in SEEDS:
        for half, tenth in zip(alphas(study.networks[seed, 0.5]), alphas(study.networks[seed, 0.1]), strict=True):
            assert (tenth <= half).all()
    masks = [tuple(alpha.tolist()) for seed in SEEDS for alpha in alphas(study.networks[seed, 0.5])]
    assert len(set(masks)) == len(masks)


def test_rows_count_the_kept_units(study):
    kept = study.rows.groupby("budget")["kept"].unique()
    assert {budget: list(counts) for budget, counts in kept.items()} == {1.0: [32], 0.5: [16], 0.1: [4], 0.0: [0]}
    assert set(study.rows["units"]) == {32}


def test_the_full_budget_member_equals_plain_relu_training(study):
    points = data.load_data("toy", seed=1)
    plain = toy.network(1)
    assert any(isinstance(module, nn.ReLU) for module in plain)
    schedule = Schedule(epochs=15, batch_size=None, optimizer="adam", lr=toy.LEARNING_RATE)
    fit(plain, points, supervised, schedule, seeds=[1], stage="toy", progress=False)
    x = points.splits["test_balanced"].x
    with torch.no_grad():
        assert torch.allclose(plain(x), study.networks[1, 1.0](x), atol=1e-4)
        assert not torch.allclose(plain(x), study.networks[1, 0.5](x), atol=1e-2)


def test_without_relus_the_network_is_affine(study):
    network = study.networks[0, 0.0]
    a, b = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network(0.3 * a + 0.7 * b), 0.3 * network(a) + 0.7 * network(b), atol=1e-5)


def test_group_accuracies_equal_a_plain_loop(study):
    for row in study.rows.itertuples():
        split = study.data[row.seed].splits[row.split]
        with torch.no_grad():
            predicted = study.networks[row.seed, row.budget](split.x).argmax(1).tolist()
        right = total = 0
        for guess, label, group in zip(predicted, split.y.tolist(), split.a.tolist(), strict=True):
            if row.group in ("all", toy.GROUPS[group]):
                total += 1
                right += guess == label
        assert row.n == total
        assert abs(row.accuracy - right / total) < 2 / total  # stacked and single sums may differ at a tie
        assert row.low <= row.accuracy <= row.high


def test_both_tests_have_the_stated_shares(study):
    n = study.rows[study.rows["seed"] == 0].drop_duplicates(["split", "group"]).set_index(["split", "group"])["n"]
    assert n["test_balanced", "majority"] == n["test_balanced", "minority"] == 1000
    assert n["test", "majority"] == 9 * n["test", "minority"]


def test_the_same_seeds_give_the_same_rows_bit_for_bit(study):
    again = toy.train(**SMALL)
    drop = ["seconds"]
    assert again.rows.drop(columns=drop).equals(study.rows.drop(columns=drop))


def test_a_seed_does_not_depend_on_its_company(study):
    alone = toy.train(**{**SMALL, "seeds": (2,)})
    x = study.data[2].splits["test"].x
    with torch.no_grad():
        assert torch.allclose(alone.networks[2, 0.5](x), study.networks[2, 0.5](x), atol=1e-4)


def test_he_weights_follow_their_uniform_law():
    weights = torch.cat([toy.network(seed)[3].weight.detach().flatten() for seed in range(20)])
    bound = (6 / 16) ** 0.5
    assert stats.kstest(weights.numpy(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 0.01


def test_summary_equals_scipys_paired_t_interval(study):
    summary = toy.summarise(study.rows)
    rows = study.rows.query("split == 'test' and group == 'minority'")
    table = 100 * rows.pivot(index="seed", columns="budget", values="accuracy")
    difference = table[0.5] - table[1.0]
    low, high = stats.t.interval(0.95, len(SEEDS) - 1, difference.mean(), stats.sem(difference))
    row = toy.at(summary, 0.5, "minority", split="test")
    assert np.allclose([row["change"], row["change_low"], row["change_high"]], [difference.mean(), low, high])
    assert row["accuracy"] == pytest.approx(table[0.5].mean())
    assert row["worse"] == (difference < 0).sum()
    full = toy.at(summary, 1.0, "minority", split="test")
    assert full["change"] == full["worse"] == 0


def test_the_typical_seed_is_the_median_one(study):
    change = {seed: study.accuracy(seed, 0.0)["minority"] - study.accuracy(seed, 1.0)["minority"] for seed in SEEDS}
    assert change[study.typical_seed(0.0)] == pytest.approx(np.median(list(change.values())))


def test_the_grid_has_height_along_rows(study):
    edge = np.linspace(-1, 1, 5)
    grid = study.minority_probability(0, 1.0, edge)
    with torch.no_grad():
        one = study.networks[0, 1.0](torch.tensor([[edge[3], edge[1]]], dtype=torch.float32)).softmax(1)[0, 1].item()
    assert grid[1, 3] == pytest.approx(one, abs=1e-5)


def test_training_data_and_true_boundary_agree_for_both_shapes():
    for boundary in data.BOUNDARIES:
        study = toy.train(seeds=[0], budgets=[1.0], boundary=boundary, steps=1, progress=False)
        train = study.data[0].splits["train"]
        above = train.x[:, 1].numpy() > study.boundary(train.x[:, 0].numpy())
        assert (above == train.a.numpy().astype(bool)).all()


def test_the_full_budget_is_always_there_and_budgets_descend():
    study = toy.train(seeds=[0], budgets=[0.25, 0.5], steps=1, progress=False)
    assert [budget for _, budget in study.networks] == [1.0, 0.5, 0.25]


def test_tables_for_reading_hold_both_groups_at_every_budget(study):
    summary = toy.summarise(study.rows)
    shown = toy.table(summary)
    assert list(shown["ReLUs kept (%)"]) == ["100", "100", "50", "50", "10", "10", "0", "0"]
    row = toy.at(summary, 0.5, "minority")
    (line,) = toy.table(summary, [0.5]).query("group == 'minority'").to_dict("records")
    assert line["change (points)"] == f"{row['change']:.1f} [{row['change_low']:.1f}, {row['change_high']:.1f}]"
    assert (line["side"], line["seeds worse, of 3"]) == (row["side"], row["worse"])


def test_the_papers_run_is_compared_with_the_range_of_single_seeds(study):
    shown = toy.against_paper(study.rows).set_index("accuracy of")
    assert list(shown["paper, one run"]) == list(toy.PAPER.values())
    rows = study.rows.query("split == 'test' and group == 'minority' and budget == 0.5")
    inside = rows["accuracy"].min() <= 0.88 <= rows["accuracy"].max()
    assert shown.loc["minority, 50 %", "the paper's is within"] == ("yes" if inside else "no")


def test_checks_hold_the_summarys_changes_and_levels(study):
    summary = toy.summarise(study.rows)
    quarter = pd.concat([summary, summary[summary["budget"] == 0.5].assign(budget=0.25)])
    rows = {row["key"]: row for row in toy.checks(quarter, summary.assign(change=-1.0, change_high=-0.5), 45)}
    row = toy.at(summary, 0.5, "majority")
    found = rows["majority-change-at-50"]
    assert (found["value"], found["low"], found["n"]) == (row["change"], row["change_low"], 3)
    assert rows["minority-at-100-imbalanced"]["value"] == toy.at(summary, 1.0, "minority", split="test")["accuracy"]
    assert rows["minority-change-at-50-with-45-steps"]["outcome"] == "holds"  # below 0

"""Oracles: counts by hand, the definition written as a loop, predictions that know no domain."""

import numpy as np
import pytest
import torch

from linfair.metrics.bias import aligned_accuracy, mean_bias


def test_it_is_the_mean_over_classes_of_the_larger_share() -> None:
    """Oracle: the formula, class by class; domains of one size."""
    draw = torch.Generator().manual_seed(0)
    predictions, domain = torch.randint(4, (200,), generator=draw), torch.arange(200) % 2
    grey, colour = (torch.bincount(predictions[domain == one], minlength=4).tolist() for one in (0, 1))
    wanted = np.mean([max(g, c) / (g + c) - 0.5 for g, c in zip(grey, colour, strict=True)])
    found = mean_bias(predictions, domain, 4)
    assert found.bias == pytest.approx(wanted) and (found.n, found.left_out) == (200, 0)
    assert found.low <= found.bias <= found.high


def test_a_network_that_names_the_domain_has_bias_one_half_and_a_blind_one_none() -> None:
    domain = torch.arange(100) % 2
    assert mean_bias(domain, domain, 2).bias == 0.5
    same = mean_bias(torch.arange(100) // 2 % 5, domain, 5, image=torch.arange(100) // 2)
    assert (same.bias, same.low, same.high) == (0, 0, 0)  # both domains of an image are drawn together


def test_classes_that_are_never_predicted_are_left_out_and_counted() -> None:
    found = mean_bias(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 1, 1]), 10)
    assert (found.bias, found.left_out, found.chance) == (0, 9, 0)  # of one class alone there is no other bias


@pytest.mark.parametrize("few", [40, 10])
def test_chance_is_the_bias_of_predictions_that_know_no_domain(few: int) -> None:
    """Oracle: the mean over 300 random ones, in domains of one size and in others."""
    draw, domain = np.random.default_rng(0), (torch.arange(80) < few).long()
    found = [mean_bias(torch.from_numpy(draw.integers(4, size=80)), domain, 4, draws=1) for _ in range(300)]
    assert np.mean([one.bias for one in found]) == pytest.approx(np.mean([one.chance for one in found]), abs=0.005)


def test_domains_of_other_sizes_are_compared_by_their_rates() -> None:
    predictions, domain = torch.tensor([0, 1] * 30), torch.tensor([0] * 40 + [1] * 20)
    assert mean_bias(predictions, domain, 2).bias == 0


def test_draws_without_a_domain_say_nothing() -> None:
    """One image of the other domain, in which all inputs are predicted alike: no draw that holds it has a bias."""
    found = mean_bias(torch.zeros(40).long(), (torch.arange(40) == 7).long(), 2)
    assert (found.bias, found.low, found.high) == (0, 0, 0)


def test_what_is_no_bias_between_two_domains_is_refused() -> None:
    for predictions, domain in (([0, 1], [0, 0]), ([0, 1], [0, 2]), ([0, 9], [0, 1]), ([0], [0, 1])):
        with pytest.raises(ValueError, match="0"):
            mean_bias(torch.tensor(predictions), torch.tensor(domain), 2)


def test_aligned_inputs_are_in_their_own_class_domain() -> None:
    y, domain = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 0, 1, 1])
    rows = aligned_accuracy(torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), y, domain, (0, 1))
    assert (rows["aligned"].n, rows["conflicting"].n) == (3, 2)
    assert rows["aligned"].accuracy == pytest.approx(2 / 3) and rows["conflicting"].accuracy == 0.5

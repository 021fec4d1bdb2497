"""Figures of mitigation: what is drawn against means by hand and the tables it comes from."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from linfair_book import mitigation
from linfair_book.figures import mitigation as figures

WAYS = ("lagrangian", "kd_over_c")


pytestmark = pytest.mark.usefixtures("house_style")


def table(*, lost: bool = False) -> pd.DataFrame:
    """Two groups, two seeds: plain 0.8 and 0.4; Algorithm 1 takes 0.08 from one and gives 0.1; KD / C gives 0.04."""
    change = {"original": (0.1, 0.3), "plain": (0, 0), "lagrangian": (-0.08, 0.1), "kd_over_c": (0, 0.04)}
    change["lagrangian(mu=0.01)"] = (-0.16, 0.12)
    lines = []
    for arm, changed in change.items():
        for budget in (1.0,) if arm == "original" else (0.4, 0.2):
            for seed in (0, 1):
                for split in ("train", "test", "test_balanced"):
                    for group, (base, role) in enumerate(((0.8, "majority"), (0.4, "minority"))):
                        gone = lost and arm == "lagrangian(mu=0.01)" and seed == 1
                        accuracy = base + changed[group] + 0.02 * (split == "train")
                        lines.append(
                            {
                                **{"arm": arm, "options": "", "budget": budget, "seed": seed, "split": split},
                                **{"group": group, "group_name": f"group {group}", "role": role, "n": 10},
                                **{"n_train": (90, 10)[group], "diverged": gone, "multiplier": np.nan},
                                **{"accuracy": np.nan if gone else accuracy, "margin": accuracy / 2},
                                **{"gradient_norm": (seed + 1.0) ** 2 / accuracy, "data": "d", "teacher": f"t{seed}"},
                            }
                        )
    return pd.DataFrame(lines)


def across(ax: plt.Axes, number: int) -> list[float]:
    """Horizontal positions of the dots drawn as that number."""
    return ax.containers[number][0].get_xdata().tolist()


def up(ax: plt.Axes, number: int) -> list[float]:
    return ax.containers[number][0].get_ydata().tolist()


def png(figure: plt.Figure) -> bytes:
    """The figure drawn in full: constrained layout warns, and warnings are errors, where things do not fit."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return file.getvalue()


def test_diverged_seeds_stand_beside_the_name_of_their_way_and_above_their_mu() -> None:
    rows = table(lost=True)
    figure = figures.change_chart(rows, ways=("lagrangian(mu=0.01)", "lagrangian"))
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["Alg. 1, mu 0.01\n(2 of 4 diverged)", "Alg. 1, mu 0.001"]
    steps = figures.step_lines(rows, mus=(0.001, 0.01))
    assert [[text.get_text() for text in ax.texts] for ax in steps.axes] == [["1/2\nlost"]] * 2


def test_fig_15_starts_at_plain_and_has_a_point_per_mu() -> None:
    figure = figures.step_lines(table(), mus=(0.001, 0.01))
    for ax in figure.axes:
        assert up(ax, 0) == pytest.approx([0, -8, -16]) and up(ax, 1) == pytest.approx([0, 10, 12])
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "0.001", "0.01"] and not ax.texts
    assert png(figure)


def test_gain_in_and_out_of_sample_is_drawn_open_and_filled() -> None:
    rows = table()
    rows.loc[(rows["arm"] == "lagrangian") & (rows["split"] == "train"), "accuracy"] += 0.05
    figure = figures.gain_in_and_out(mitigation.in_and_out(rows), ways=WAYS)
    _, minority = figure.axes
    assert across(minority, 0) == pytest.approx([15, 4]) and across(minority, 1) == pytest.approx([10, 4])
    assert minority.containers[0][0].get_markerfacecolor() == "none"
    assert png(figure)


def test_figs_13_and_14_begin_with_the_original_on_both_sides_and_gradient_norms_are_geometric() -> None:
    figure = figures.levels(table(), (("gradient_norm", "train"), ("accuracy", "test")), ways=("plain", "lagrangian"))
    without, mitigated, accuracy, _ = figure.axes
    assert up(without, 1) == pytest.approx([2 / 0.72, 2 / 0.42, 2 / 0.42])
    assert up(mitigated, 1) == pytest.approx([2 / 0.72, 2 / 0.52, 2 / 0.52])
    assert up(accuracy, 0) == pytest.approx([90, 80, 80])
    assert [ax.get_title() for ax in figure.axes[:2]] == ["without mitigation", "with Alg. 1, mu 0.001"]
    margins = figures.levels(table(), (("margin", "test"), ("accuracy", "test")), ways=["lagrangian"])
    assert up(margins.axes[0], 1) == pytest.approx([0.35, 0.25, 0.25])
    assert png(figure) and png(margins)


def test_fig_9_draws_the_change_of_both_roles_in_points_on_one_scale() -> None:
    figure = figures.change_chart(table(), ways=WAYS)
    assert [ax.get_title() for ax in figure.axes] == ["40 % ReLUs", "20 % ReLUs"]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["Alg. 1, mu 0.001", "KD / C"]
    assert across(figure.axes[1], 1) == pytest.approx([10, 4]) and png(figure)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()


def test_the_trade_chart_draws_roles_violation_and_all_images_the_fairest_way_first() -> None:
    rows = table()
    figure = figures.trade_chart(rows)
    roles, violation, _ = figure.axes
    means = mitigation.trade(rows, against="plain").query("of == 'violation' and way != 'control'").sort_values("mean")
    assert across(violation, 0) == means["mean"].tolist()
    names = [tick.get_text() for tick in roles.get_yticklabels()]
    assert names == [mitigation.label(way) for way in means["way"]] and png(figure)

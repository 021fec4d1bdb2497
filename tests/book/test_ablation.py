"""`linfair_book.ablation`: what is switched on, that a seed is the same images and start, and gains worked by hand."""

from dataclasses import replace

import pandas as pd
import pytest
from linfair_book import ablation
from linfair_book.judging import measured, rules

QUICK = replace(ablation.SWEEP, members=2, schedule=replace(ablation.SWEEP.schedule, epochs=1))


def test_every_cell_is_computed_once_and_under_every_rule_there_is_a_reference() -> None:
    cells = list(ablation.cells())
    assert len(cells) == len(set(cells)) and {name for *_, name in cells} == set(ablation.TECHNIQUES)
    for rule in ("dp_sat", "dp_sgd"):
        for epsilon in (8.0, 3.0):
            assert {(rule, epsilon, name) for name in ("nothing", "all", *ablation.ALL)} <= set(cells)


def test_a_technique_is_in_the_network_or_the_rule_and_rows_say_what_is_guaranteed(
    monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    asked, plain = [], ablation.trained
    monkeypatch.setattr(ablation, "trained", lambda *given: asked.append(given) or plain(*given))
    table = ablation.found("dp_sat", 3.0, "all but group norm", QUICK)
    (sweep, sets, seeds, options), *_ = asked
    assert (sweep.norm, sweep.standardised) == ("batch", True)
    assert (options.name, options.epsilon, options.multiplicity, options.average) == ("dp_sat", 3.0, 2, 0.95)
    assert list(seeds) == [0, 1] and all(one.fixed_scale and one.reach for one in sets)
    assert set(table["guarantee"]) == {"holds"} and set(table["epsilon"]) == {3.0} and set(table["delta"]) == {1e-5}
    assert not table.duplicated(["seed", "who"]).any() and set(table["who"]) == {"all", "aligned", "conflicting"}
    value = rules.load("book/rules.toml").claims["b-s01"].checks[0].value
    both = pd.concat([table.assign(technique="all", accuracy=0.5), table.assign(technique="nothing", accuracy=0.25)])
    assert list(measured.differences(value, both)[0]["value"]) == [25.0, 25.0]


def test_gains_are_over_nothing_and_losses_from_all() -> None:
    about = {"rule": "dp_sat", "epsilon": 8.0, "delta": 1e-5, "guarantee": "holds", "who": "all"}
    reached = {"nothing": (0.2, 0.4), "all": (0.6, 0.6), "group norm": (0.3, 0.5), "all but group norm": (0.3, 0.4)}
    rows = [
        about | {"technique": k, "seed": s, "accuracy": v} for k, both in reached.items() for s, v in enumerate(both)
    ]
    found = ablation.gains(pd.DataFrame(rows)).set_index("technique")
    assert found["mean"].round(6).to_dict() == {"group norm": 10.0, "all": 30.0, "all but group norm": 25.0}
    assert set(found["trained"]) == {"DP-SAT, (8, 1e-5)"} and set(found["n_seeds"]) == {2}

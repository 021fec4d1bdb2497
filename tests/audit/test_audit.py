"""`linfair audit` from end to end on a user's folder and network: what is written, and that page and tables agree."""

import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from linfair import gates
from linfair.audit import Plan, answer, audit, caveats, network, read_own, read_user, run
from linfair.audit.linearize import linearize_to
from linfair.cli import main
from linfair.cost import count_macs, private_inference_cost
from linfair.data import load_data
from linfair.masks import Mask, masks_of
from linfair.metrics import wilson
from linfair.study import ResultStore, grid
from linfair.training import correctness


class Page(HTMLParser):
    """Tables (rows of cell texts by caption), all attributes, and the page's text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables, self.attributes, self.tags, self.open = {}, [], [], []
        self.text, self._rows, self._cell = [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Note attributes; start tables, rows and cells."""
        found = dict(attributes)
        self.attributes += [(tag, *one) for one in attributes]
        self.tags.append(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(found["aria-label"], [])
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        """End cells."""
        if tag in ("td", "th"):
            self._rows[-1].append(self._cell)
            self._cell = None

    def handle_data(self, data):
        """Collect text."""
        self.text.append(data)
        if self._cell is not None:
            self._cell += data

    def frame(self, start: str) -> pd.DataFrame:
        """The one table whose caption starts so."""
        (rows,) = [rows for label, rows in self.tables.items() if label.startswith(start)]
        return pd.DataFrame(rows[1:], columns=rows[0])


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def groups(report: Path) -> pd.DataFrame:
    return pd.read_parquet(report / "groups.parquet")


def cells(rows: pd.DataFrame) -> list[str]:
    ends = rows.sort_values("group")[["accuracy", "low", "high"]].itertuples(index=False)
    return [f"{100 * a:.1f} [{100 * b:.0f}, {100 * c:.0f}]" for a, b, c in ends]


def test_the_page_shows_the_numbers_of_the_table(page: Page, groups: pd.DataFrame) -> None:
    shown = page.frame("Accuracy in %, with its 95 % interval")
    assert list(shown["group"]) == ["bright", "dim"]
    assert list(page.frame("Groups")["role"]) == ["majority", "minority"]
    assert list(shown["100 %"]) == cells(groups[groups["arm"] == "original"])
    for budget in (0.5, 0.1):
        rows = groups[(groups["arm"] == "plain") & (groups["budget"] == budget)]
        assert list(shown[f"{100 * budget:g} %"]) == cells(rows)


def test_the_page_has_the_parts_in_their_order_and_every_caveat(page: Page) -> None:
    text = " ".join("".join(page.text).split())
    titles = [
        "The answer",
        "Who pays at which",
        "Why",
        "What helps",
        "What it costs",
        "What this report does not",
    ]
    assert sorted(titles, key=text.index) == titles
    for words in ("One seed", "Intervals", "column light of labels.csv", "Whose test images", "Control", "Selection"):
        assert words in text
    for words in ("no legal assessment", "proof of cause", "validation images", "the numbers mean nothing", "Mbit/s"):
        assert words in text
    assert "linfair audit --model mymodel.py:build --weights w.safetensors" in text


def test_the_page_needs_nothing_else(report: Path, page: Page) -> None:
    """No address, script or file: nothing can be requested; links inside figures find their target."""
    text = (report / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w|@import|<script|<link|<img|<iframe", text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "data", "action", "poster"):
            assert value.startswith("#"), (tag, name, value)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in page.attributes if name.endswith("href")}
    targets |= {one for _, _, value in page.attributes for one in re.findall(r"url\(#([^)]+)\)", value or "")}
    assert targets and targets <= set(ids)
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(labels) == page.tags.count("svg") >= 3 and min(map(len, labels)) > 40


def test_accuracies_are_those_of_the_written_networks(
    place: Path, chosen: dict, report: Path, groups: pd.DataFrame
) -> None:
    """Oracle: the written weights, loaded as the page says, counted by hand on the test split."""
    data = load_data(f"folder:{place / 'images'}", seed=0, **chosen)
    build = network._built(place / "mymodel.py", "build", data)
    for budget in (0.5, 0.1):
        model = gates.install(build, data.input_shape)
        model.load_state_dict(load_file(report / f"snl-{budget}.weights.safetensors"))
        right, part = correctness(model, data, "test")[0], data.splits["test"]
        rows = groups[(groups["arm"] == "plain") & (groups["budget"] == budget)].sort_values("group")
        for row in rows.itertuples():
            mine = right[part.a == row.group]
            assert row.n == len(mine) and row.accuracy == pytest.approx(mine.mean().item())
            assert (row.low, row.high) == pytest.approx(wilson(row.accuracy, row.n))
        (mask,) = masks_of(model)
        written = Mask.load(report / f"snl-{budget}.mask.safetensors")
        assert all(torch.equal(units, written.units[site]) for site, units in mask.units.items())
        assert mask.kept == rows["kept"].iloc[0] <= budget * mask.total + 1


def test_cost_is_the_cost_models(place: Path, chosen: dict, report: Path) -> None:
    data = load_data(f"folder:{place / 'images'}", seed=0, **chosen)
    macs = count_macs(network._built(place / "mymodel.py", "build", data), data.input_shape)
    cost = pd.read_parquet(report / "cost.parquet").set_index("budget")
    for budget in (0.5, 0.1):
        mask = Mask.load(report / f"snl-{budget}.mask.safetensors")
        expected = private_inference_cost(mask, bandwidth=1e8, rtt=0.05, macs=macs)
        assert cost.loc[budget, "online_seconds"] == pytest.approx(expected.online_seconds)
        freed = [site for site, count in mask.per_site.items() if not count]
        assert cost.loc[budget, "freed"] == ", ".join(freed)
    assert cost.loc[1.0, "kept"] == 6 * 64 + 8 * 16
    assert (cost["others"] == "").all() and (cost["dominant"] == "").all()
    assert "The network computes no nonlinearity but its ReLUs." in (report / "index.html").read_text()


def test_test_images_are_seen_only_by_the_last_stage(
    inside: Path, chosen: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the diagnosis, every stage is handed a data set that has no test split."""
    seen: list[tuple[str, set[str]]] = []

    def spied(name: str, at: int):
        original = getattr(run, name)

        def spy(*given, **options):
            data = given[at]
            seen.append((name, set((data if hasattr(data, "splits") else data.data).splits)))
            return original(*given, **options)

        monkeypatch.setattr(run, name, spy)

    for name, at in (("Stages", 0), ("behaviour", 1), ("mitigate", 0), ("diagnose", 2)):
        spied(name, at)
    subject = read_user("mymodel.py:build", "w.safetensors", "folder:images", **chosen)
    plan = Plan(method="random", budgets=(0.3,), arms=("group_dro",), profile="smoke", curvature=False)
    audit(subject, plan, store=ResultStore(tmp_path / "store"), progress=False)
    first = [name for name, _ in seen].index("diagnose")
    assert first >= 3
    assert all(splits == {"train", "val"} for _, splits in seen[:first])
    assert {name for name, _ in seen[first:]} == {"diagnose"}


def test_interrupted_goes_on_and_finished_reads_everything(
    inside: Path, chosen: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the repairs, then in the last stage; the third run trains nothing and says what a whole run does."""
    subject = read_user("mymodel.py:build", "w.safetensors", "folder:images", **chosen)
    plan = Plan(budgets=(0.5, 0.1), arms=("balanced_sampling",), profile="smoke", curvature=False)

    def again(store: ResultStore):
        return audit(subject, plan, store=store, progress=False)

    whole = again(ResultStore(tmp_path / "whole"))
    store = ResultStore(tmp_path / "store")

    def stop(*given, **options):
        raise KeyboardInterrupt

    for name in ("mitigate", "diagnose"):
        with monkeypatch.context() as patch:
            patch.setattr(run, name, stop)
            with pytest.raises(KeyboardInterrupt):
                again(store)
    with monkeypatch.context() as patch:
        for module in ("linfair.linearizers.snl", "linfair.linearizers.finetuning"):
            patch.setattr(sys.modules[module], "fit", stop)
        done = again(store)
    columns = ["arm", "budget", "group", "n", "accuracy", "drop", "drop_low", "gradient_norm", "margin"]
    pd.testing.assert_frame_equal(done.groups[columns], whole.groups[columns])
    assert answer(done) == answer(whole)
    with monkeypatch.context() as patch:
        patch.setattr(run, "diagnose", stop)
        pd.testing.assert_frame_equal(again(store).groups, done.groups)


def test_the_control_keeps_every_relu(groups: pd.DataFrame) -> None:
    control = groups[groups["arm"] == "control"]
    assert set(control["kept"]) == {6 * 64 + 8 * 16} and set(control["budget"]) == {0.5, 0.1}


def test_linfairs_own_network_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """From `linfair linearize`'s teacher; the written weights are read by `linfair diagnose`, which counts the same."""
    monkeypatch.setenv("LINFAIR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (cell,) = grid("digits", "mlp", method="random", budgets=(0.2,), seeds=(3,), profile="smoke", width=16)
    linearize_to(tmp_path / "made", cell, with_control=False, store=ResultStore(tmp_path / "store"), progress=False)
    options = ["--method", "random", "--budgets", "0.2", "--profile", "smoke", "--no-curvature", "--no-mitigate"]
    start = ["audit", "--teacher", "made/teacher.safetensors", "--no-control", *options]
    assert main.main([*start, "--network", "mlp", "--out", "out"]) == 0
    printed = capsys.readouterr().out
    assert "No repair was tried" in printed and "20 % of the ReLUs" in printed
    table = pd.read_parquet("out/groups.parquet")
    assert not Path("out/arms.parquet").exists() and set(table["arm"]) == {"original", "plain"}
    files = ["--teacher", "made/teacher.safetensors", "--mask", "out/random-0.2.mask.safetensors"]
    files += ["--weights", "out/random-0.2.weights.safetensors", "--split", "test_balanced", "--no-curvature"]
    assert main.main(["diagnose", *files, "--out", "d.parquet"]) == 0
    again = pd.read_parquet("d.parquet")
    expected = again[again["arm"] == "linearized"]["accuracy"].tolist()
    assert table[table["arm"] == "plain"]["accuracy"].tolist() == expected
    text = Path("out/index.html").read_text()
    assert "Groups are the labels themselves" in text and "No control was trained" in text
    subject = read_own("made/teacher.safetensors")
    assert subject.own and subject.data.splits.keys() >= {"train", "val", "test_balanced"}
    assert main.main([*start, "--seed", "1"]) == 2 and "leave out --seed" in capsys.readouterr().err
    assert main.main([*start, "--network", "resnet18"]) == 2 and "leave --network out" in capsys.readouterr().err


def test_a_given_split_and_scale_change_what_is_said(inside: Path, chosen: dict, tmp_path: Path) -> None:
    """With a column `split` the test images are the user's; with mean and deviation no advice about them is needed."""
    shutil.copytree(inside / "images", tmp_path / "images")
    lines = (tmp_path / "images" / "labels.csv").read_text().splitlines()
    marked = [lines[0] + ",split"] + [f"{line},{'test' if i % 4 == 1 else 'train'}" for i, line in enumerate(lines[1:])]
    (tmp_path / "images" / "labels.csv").write_text("\n".join(marked))
    scale = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    subject = read_user("mymodel.py:build", "w.safetensors", f"folder:{tmp_path / 'images'}", **scale, **chosen)
    x = subject.data.normalise(subject.data.splits["test"].x)
    assert not subject.drawn and x.min() >= 0 and x.max() <= 1
    plan = Plan(method="random", budgets=(0.5,), mitigate=False, control=False, profile="smoke", curvature=False)
    found = audit(subject, plan, store=ResultStore(tmp_path / "store"), progress=False)
    titles = [title for title, _ in caveats(found)]
    assert "Validation images" in titles and "Whose test images" not in titles and "Preparation" not in titles


def test_it_says_when_the_linearized_network_no_longer_works(inside: Path, chosen: dict, tmp_path: Path) -> None:
    """With the accuracy of one fixed answer put into the rows, who loses most is no finding."""
    subject = read_user("mymodel.py:build", "w.safetensors", "folder:images", **chosen)
    plan = Plan(
        method="random", budgets=(0.5,), mitigate=False, control=False, profile="smoke", lr=1e-9, curvature=False
    )
    found = audit(subject, plan, store=ResultStore(tmp_path / "store"), progress=False)
    table = found.groups.copy()
    table.loc[table["arm"] == "plain", ["accuracy", "low", "high"]] = [0.5, *wilson(0.5, 24)]
    broken = replace(found, groups=table)
    assert "no longer works" in answer(broken)[0] and "Failed budgets" in dict(caveats(broken))

"""The boundary explorer in a real browser: it computes what torch and the package compute, and a link restores it."""

import base64
import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from boundary import SHORT, address, open_at, press, settled, shown
from linfair_book.explorer import host
from playwright.sync_api import Page, expect
from torch import nn

from linfair import gates
from linfair.data import BOUNDARIES, GroupedData, load_data
from linfair.linearizers.oneshot import OneShot, negative_part_scores, snip_scores
from linfair.mitigation import Lagrangian
from linfair.training import Schedule, fit

pytestmark = pytest.mark.browser

NAMES = ("accuracies", "bends", "BOUNDARIES", "data", "decode", "encode", "FIRST", "forward", "importance")
NAMES += ("preactivation", "replay", "start", "step")
ALL = [1] * 32
READY = """async (source) => {
  window.page = (await import(source)).page;
}"""
TRAIN = """({ theta, mask, x, groups, steps, lr, mu, teacher }) => {
  const points = { x: Float64Array.from(x), groups: Uint8Array.from(groups) };
  const kept = Uint8Array.from(mask);
  const run = page.start(Float64Array.from(theta));
  for (let i = 0; i < steps; i++) page.step(run, kept, points, { lr, mu, teacher });
  return { theta: [...run.theta], logits: [...page.forward(run.theta, kept, points.x)], multipliers: run.multipliers };
}"""
FORWARD = (
    "({ theta, mask, x }) => [...page.forward(Float64Array.from(theta), Uint8Array.from(mask), Float64Array.from(x))]"
)
REPLAY = """(link) => {
  const recipe = page.decode(link);
  const points = page.data(recipe);
  const steps = page.replay(recipe, points);
  let next = steps.next();
  while (!next.done) next = steps.next();
  const { run, mask, base } = next.value;
  const test = { x: [...points.test.x], groups: [...points.test.groups] };
  return { theta: [...run.theta], mask: [...mask], base: [...(base ?? run).theta], test };
}"""


class Pair(nn.Module):
    """The network of the page, and its one logit as the second of two, the first being 0."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two logits."""
        logit = self.net(x)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


def weights(network: nn.Module) -> list[float]:
    """As the page lays them out: W1, b1, W2, b2, w3, b3."""
    layers = [one for one in network.modules() if isinstance(one, nn.Linear)]
    return [value for one in layers for part in (one.weight, one.bias) for value in part.detach().flatten().tolist()]


def loaded(theta: list[float]) -> Pair:
    """A network in float64 with the page's weights."""
    network, at = Pair().double(), 0
    for layer in (one for one in network.modules() if isinstance(one, nn.Linear)):
        for part in (layer.weight, layer.bias):
            part.data.copy_(torch.tensor(theta[at : at + part.numel()], dtype=torch.float64).view_as(part))
            at += part.numel()
    return network


def masked(network: nn.Module, mask: list[int]) -> nn.Module:
    """The package's mask on it: alpha 0 for each unit that is linear."""
    gated = gates.install(network, (2,)).double()
    for gate, alpha in zip(gates.sites(gated).values(), torch.tensor(mask).view(2, 16), strict=True):
        gate.alpha.data.copy_(alpha)
    return gates.freeze(gated)


def of_points(data: GroupedData) -> dict[str, list]:
    train = data.splits["train"]
    return {"x": train.x.double().flatten().tolist(), "groups": train.a.tolist()}


def functions(tab: Page) -> Page:
    """The module's functions without the page, as `page`."""
    source = host.joined((*host.WORKER, "link")) + f"export const page = {{ {', '.join(NAMES)} }};"
    tab.goto("about:blank")
    tab.evaluate(READY, "data:text/javascript;base64," + base64.b64encode(source.encode()).decode())
    return tab


@pytest.fixture(scope="module")
def toy() -> GroupedData:
    return load_data("toy", majority=270, minority=30, test_per_group=50)


@pytest.fixture
def numerics(tab: Page) -> Page:
    return functions(tab)


@pytest.mark.parametrize("linear", [(), (3, 17, 30)], ids=["all ReLUs", "three linear"])
def test_training_equals_torchs_own_run_from_the_same_weights(numerics: Page, toy: GroupedData, linear: tuple) -> None:
    """Oracle: torch, float64, full-batch Adam on binary cross entropy."""
    mask = [int(unit not in linear) for unit in range(32)]
    network, points = Pair(), of_points(toy)
    theta = weights(network.double())
    gated = masked(network, mask)
    x = torch.tensor(points["x"], dtype=torch.float64).view(-1, 2)
    y = torch.tensor(points["groups"], dtype=torch.float64)
    adam = torch.optim.Adam([one for one in gated.parameters() if one.requires_grad], lr=0.03)
    for _ in range(200):
        adam.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(gated(x)[:, 1], y).backward()
        adam.step()
    found = numerics.evaluate(TRAIN, {"theta": theta, "mask": mask, **points, "steps": 200, "lr": 0.03, "mu": 0})
    np.testing.assert_allclose(found["theta"], weights(gated), atol=1e-4)
    np.testing.assert_allclose(found["logits"], gated(x)[:, 1].detach(), atol=1e-4)
    assert np.abs(np.array(found["theta"]) - theta).max() > 0.5, "nothing was trained"


@pytest.mark.parametrize("mu", [0.0, 0.05])
def test_fine_tuning_and_repair_equal_the_packages(numerics: Page, toy: GroupedData, mu: float) -> None:
    """Oracle: linfair's L^KD and Algorithm 1 by linfair's fit, in float32 and few enough steps."""
    mask, teacher = [int(unit % 2) for unit in range(32)], Pair(1)
    student = masked(copy.deepcopy(teacher), mask).float()
    points, theta = of_points(toy), weights(teacher)
    objective = Lagrangian(mu=mu).start(student, teacher, toy)
    schedule = Schedule(epochs=15, batch_size=None, optimizer="adam", lr=0.01)
    fit(student, toy, objective, schedule, progress=False, **objective.hooks)
    taught = teacher(toy.splits["train"].x)[:, 1].double().tolist()
    given = {"theta": theta, "mask": mask, **points, "steps": 15, "lr": 0.01, "mu": mu, "teacher": taught}
    found = numerics.evaluate(TRAIN, given)
    np.testing.assert_allclose(found["theta"], weights(student), atol=1e-4)
    # the page takes the multipliers' last step when the next one begins
    before = objective.multipliers[0].numpy() - mu * np.array(objective.rows[-1].get("violations", [[0, 0]])[0])
    np.testing.assert_allclose(found["multipliers"], before, atol=1e-4)


def test_a_linear_unit_is_the_packages_mask_for_every_unit(numerics: Page) -> None:
    """Oracle: linfair.gates with that unit's alpha 0 on the same weights."""
    network, x = Pair(2).double(), torch.rand(64, 2, dtype=torch.float64) * 2 - 1
    for unit in range(32):
        mask = [int(other != unit) for other in range(32)]
        found = numerics.evaluate(FORWARD, {"theta": weights(network), "mask": mask, "x": x.flatten().tolist()})
        np.testing.assert_allclose(found, masked(network, mask)(x)[:, 1].detach(), atol=1e-12)


def test_bends_and_importance_are_the_packages_scores(numerics: Page, toy: GroupedData) -> None:
    """Oracle: linfair.linearizers' negative_part and snip."""
    network = Pair(3)
    gated = gates.freeze(gates.install(network, (2,))).eval()
    given = {"theta": weights(network), "mask": ALL, **of_points(toy)}
    bends = (
        "({ theta, mask, x }) => [...page.bends(Float64Array.from(theta), Uint8Array.from(mask), Float64Array.from(x))]"
    )
    felt = """({ theta, x, groups }) =>
      [...page.importance(Float64Array.from(theta), { x: Float64Array.from(x), groups: Uint8Array.from(groups) })]"""
    for code, score in ((bends, negative_part_scores), (felt, snip_scores)):
        expected = np.concatenate([one.flatten() for one in score(gated, toy, 0, OneShot()).values()])
        np.testing.assert_allclose(numerics.evaluate(code, given), expected, atol=1e-6)


def test_wave_and_convex_are_the_packages_curves_and_points_lie_on_their_side(numerics: Page) -> None:
    x = np.linspace(-1, 1, 41)
    for name, curve in (("wave", BOUNDARIES["sine"]), ("convex", BOUNDARIES["parabola"])):
        code = "([name, x, y]) => x.map((value, i) => page.BOUNDARIES[name](value, y[i]))"
        on_it = numerics.evaluate(code, [name, x.tolist(), curve(x, amplitude=0.5, frequency=2.5).tolist()])
        np.testing.assert_allclose(on_it, 0, atol=1e-12)
    for name in ("wave", "circle", "spiral", "convex"):
        code = """(boundary) => {
          const { train, test } = page.data({ boundary, share: 10, seed: 1, painted: [[100, -100, 1]] });
          const above = (i) => page.BOUNDARIES[boundary](test.x[2 * i], test.x[2 * i + 1]) > 0;
          const right = [...test.groups].every((a, i) => above(i) === !!a);
          return [right, train.groups.reduce((sum, a) => sum + a), train.groups.length, ...train.x.slice(-2)];
        }"""
        assert numerics.evaluate(code, name) == [True, 101, 1001, 1, -1]


def test_clicking_a_unit_changes_the_numbers_to_those_of_the_packages_mask(tab: Page, file: Path) -> None:
    """Oracle: torch with linfair's gates, on the weights and the test points of the same recipe."""
    open_at(tab, file, SHORT.replace("_5_", "_2s_"))  # 100 steps
    before = tab.evaluate("document.querySelector('canvas').toDataURL()")
    for unit in (4, 20, 27):
        tab.locator(f"[data-unit='{unit}']").click()
    settled(tab)
    assert tab.evaluate("document.querySelector('canvas').toDataURL()") != before
    pressed = [one.get_attribute("aria-pressed") == "true" for one in tab.locator(".unit").all()]
    assert [unit for unit, linear in enumerate(pressed) if linear] == [4, 20, 27]
    printed, said = shown(tab), tab.locator("[role=status]")
    expect(said).to_contain_text("29 of 32 ReLUs")
    expect(said).to_contain_text(f"minority {printed[3]}")
    link = address(tab)
    found = functions(tab).evaluate(REPLAY, link)
    assert found["mask"] == [int(unit not in (4, 20, 27)) for unit in range(32)]
    x = torch.tensor(found["test"]["x"], dtype=torch.float64).view(-1, 2)
    groups = torch.tensor(found["test"]["groups"])
    for mask, theta, column in ((found["mask"], found["theta"], 0), (ALL, found["base"], 1)):
        right = masked(loaded(theta), mask)(x).argmax(dim=1) == groups
        for group in (0, 1):
            assert printed[3 * group + column] == f"{100 * right[groups == group].double().mean():.1f} %"


def test_a_link_restores_everything(tab: Page, file: Path) -> None:
    """Round trip through the page: what is shown in a new page is what was shown in the old one."""
    open_at(tab, file, SHORT.replace("_wave_a_0_", "_circle_k_3_"))
    press(tab, "By importance")
    press(tab, "Repair")
    tab.locator("[data-name=mu]").press("ArrowRight")
    settled(tab)
    tab.locator("[data-unit='9']").click()
    tab.get_by_role("button", name="Step", exact=True).click()
    press(tab, "majority")
    tab.locator("canvas").click(position={"x": 30, "y": 40})
    settled(tab)
    tab.locator("[data-name=overlay]").uncheck()
    look = """() => [...document.querySelectorAll(".toy :is(input, select)")]
      .map((one) => one.checked ? "on" : one.value)
      .concat([...document.querySelectorAll(".unit")].map((one) => one.getAttribute("aria-pressed")),
        document.querySelector(".reached").textContent, document.querySelector(".now tbody").innerText)"""
    link, before = address(tab), tab.evaluate(look)
    assert link == tab.evaluate("location.hash.slice(1)") and "_p" in link
    open_at(tab, file, link)
    assert tab.evaluate(look) == before
    expect(tab.get_by_text("Link to this network")).to_have_attribute("href", f"#{link}")
    assert tab.evaluate("(link) => document.querySelector('#' + link)", link) is None  # a valid selector


def test_every_view_comes_back_from_its_text_and_others_are_refused(numerics: Page) -> None:
    views = """() => {
      const round = { how: "hand", keep: 3, draw: 7, bits: 4294967295, mode: "repair", mu: 20, steps: 200 };
      const rounds = [round, { ...round, how: "same", bits: 0, mode: "tune" }];
      const painted = [[-100, 100, 1], [7, -3, 0]];
      const more = { boundary: "spiral", unit: 31, overlay: false, story: 2, scene: 3, painted };
      const views = [page.FIRST, { ...page.FIRST, ...more, rounds }];
      return views.map((view) => [JSON.stringify(view), JSON.stringify(page.decode(page.encode(view)))]);
    }"""
    for one, other in numerics.evaluate(views):
        assert one == other
    bad = [
        "",
        "section-1",
        "toy",
        "toy_square_a_0_5_g-a-0-1-0-0",
        SHORT + "_x1",
        SHORT + "_pzzzz",
        SHORT + "_r9-0-0-0-0-0-0",
    ]
    assert numerics.evaluate("(texts) => texts.map((one) => page.decode(one))", bad) == [None] * len(bad)

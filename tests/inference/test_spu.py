"""A private answer: plaintext as the oracle of its scores, closed forms as that of its bytes.

Without the engine (`make mpc`) the tests that compute one are skipped.
"""

from functools import cache

import pytest
import torch
from linfair_book.tables import committed
from torch import nn

from linfair import build, gates
from linfair.inference import EngineMissing, private_answer, spu, to_onnx

TOLERANCE = 2e-3  # of a score of about 1: 18 fraction bits, roundings of some hundred sums


@pytest.fixture
def engine() -> str:
    try:
        return spu.engine()
    except EngineMissing as error:
        pytest.skip(str(error))


def reduced(name: str, shape: tuple[int, ...], share: float, **options: object) -> nn.Module:
    """A network with seeded weights that keeps a random share of its ReLUs."""
    torch.manual_seed(0)
    network = gates.install(build(name, shape, 10, **options).eval(), shape)
    return gates.set_alphas(network, lambda _, alpha: (torch.rand(alpha.shape) < share).float()).eval()


@cache
def mlp() -> tuple[nn.Module, bytes]:
    """A linearized MLP, and its file."""
    network = reduced("mlp", (1, 8, 8), 0.3)
    return network, to_onnx(network, (1, 8, 8))


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def check(answer: spu.Answer, network: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(answer.logits, network(x), atol=TOLERANCE, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "parties"), [("cheetah", 2), ("aby3", 3), ("semi2k", 3)])
def test_private_scores_of_a_linearized_mlp_are_those_in_the_clear(engine, protocol, parties):
    (network, file), x = mlp(), images(2, 1, 8, 8)
    answer = private_answer(file, x, protocol, parties=parties)
    check(answer, network, x)
    assert (answer.protocol, answer.parties, answer.versions["spu"]) == (protocol, parties, "0.9.5")
    assert set(answer.seconds) == {"setup", "compile", "share", "run", "reveal"}
    assert answer.sent_bytes == sum(sent for sent, _, _ in answer.operations.values()) > 0 < answer.rounds


def test_relus_that_are_gathered_cost_144_bytes_each_and_multiplying_by_the_mask_saves_none(engine):
    """Oracle of SEMI2K: a product of m x k and k x n sends its masked factors from both sides, and a truncation."""
    (network, file), x = mlp(), images(1, 1, 8, 8)
    sizes = [module.weight.shape for module in network.modules() if isinstance(module, nn.Linear)]
    linear = sum(16 * (k + k * n) + 8 * n for n, k in sizes)
    kept, total = int(gates.kept_units(network)), gates.total_units(network)
    gathered = private_answer(file, x)
    multiplied = private_answer(to_onnx(network, (1, 8, 8), execution="multiply"), x)
    assert gathered.sent_bytes == linear + 144 * kept
    assert multiplied.sent_bytes == linear + (144 + 8) * total
    check(gathered, network, x)
    check(multiplied, network, x)


class Other(nn.Module):
    """Nonlinearities and layers that the networks of the package do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1, stride=2)
        self.groups = nn.Conv2d(8, 8, 3, padding=2, groups=2, dilation=2)
        self.last = nn.Linear(8 * 9, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        x = nn.functional.hardswish(self.first(x))
        x = nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True) + 1
        x = nn.functional.leaky_relu(self.groups(x), 0.1)
        x = nn.functional.avg_pool2d(x, 2, 2, 1, count_include_pad=False)
        return self.last(nn.functional.gelu(x).flatten(1)).softmax(1)


@pytest.mark.slow
def test_other_nonlinearities_pools_and_groups_are_computed_as_torch_computes_them(engine):
    torch.manual_seed(0)
    network, x = Other().eval(), images(2, 2, 17, 17)
    check(private_answer(to_onnx(network, (2, 17, 17)), x), network, x)


@pytest.mark.slow
def test_a_thin_resnet_is_answered_privately(engine):
    network, x = reduced("resnet18", (3, 16, 16), 0.2, width=2), images(1, 3, 16, 16)
    check(private_answer(to_onnx(network, (3, 16, 16)), x), network, x)


def test_an_operation_that_the_engine_does_not_know_is_refused_by_name(engine):
    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).topk(3).values

    with pytest.raises(ValueError, match="TopK"):
        private_answer(to_onnx(nn.Sequential(nn.Linear(8, 8), Sorted()), (8,)), images(1, 8))


def test_without_the_engine_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("LINFAIR_MPC", "/no/such/python")
    with pytest.raises(EngineMissing, match="make mpc") as caught:
        private_answer(b"", images(1, 8))
    assert "/no/such/python" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "parties", "said"), [("spdz", None, "cheetah"), ("cheetah", 3, "2"), ("aby3", 2, "3")]
)
def test_another_protocol_or_number_of_parties_is_refused(protocol, parties, said):
    with pytest.raises(ValueError, match=said):
        private_answer(b"", images(1, 8), protocol, parties=parties)


def test_bytes_and_rounds_are_read_from_the_engines_log():
    """Oracle: a log by hand, of a set-up and an answer."""
    line = "[now] [info] [api.cc:1]"
    log = "\n".join(
        [
            f"{line} [Profiling] SPU execution setup completed, input processing took 1e-06s, execution took 0.5s",
            f"{line} Link details: total send bytes 7, recv bytes 9, send actions 3, recv actions 3",
            f"{line} [Profiling] SPU execution answer completed, input processing took 1e-06s, execution took 2s",
            f"{line} - pphlo.less, executed 2 times, duration 1.5e-01s, send bytes 40 recv bytes 41, send actions 7, x",
            f"{line} - pphlo.custom_call: spu.gather, executed 1 times, duration 0.1s, send bytes 0 recv bytes 0, "
            "send actions 0, recv actions 0",
            f"{line} Link details: total send bytes 40, recv bytes 41, send actions 7, recv actions 7",
        ]
    )
    found = dict(spu.runs(log))
    assert found["setup"] == {"all": (7, 3, 0.5)}
    assert found["answer"] == {
        "pphlo.less": (40, 7, 0.15),
        "pphlo.custom_call: spu.gather": (0, 0, 0.1),
        "all": (40, 7, 2.0),
    }
    assert spu.summed([found["answer"], {"all": (2, 9, 1.0)}])["all"] == (42, 9, 2.0)


def test_committed_answers_pay_a_price_for_each_relu_that_is_gathered_and_nothing_less_when_multiplied():
    """Oracle of SEMI2K: the same network without a ReLU, and the count of those that it keeps."""
    rows = committed("spu_networks").drop_duplicates(["network", "protocol", "parties", "execution", "budget"])
    assert set(rows["protocol"]) == {"semi2k", "aby3", "cheetah"}
    for (_, parties), part in rows[rows["protocol"] == "semi2k"].groupby(["network", "parties"]):
        bare = part.loc[part["budget"] == 0, "bytes"].item()
        gathered, multiplied, layers = (part[part["execution"] == one] for one in ("gather", "multiply", "layer"))
        assert sorted(gathered["budget"]) == [0, 0.02, 0.2, 0.5, 1]
        assert gathered["bytes"].to_list() == (bare + {2: 144, 3: 2598}[parties] * gathered["kept"]).to_list()
        whole = bare + 144 * part["total"].max()
        assert (multiplied["bytes"] > layers["bytes"].to_numpy()).all() and (layers["bytes"] <= whole).all()


def test_committed_scores_are_those_in_the_clear():
    """What the page says: a prediction flips for no group, and no score is off by more than 0.02."""
    rows = committed("spu_networks").dropna(subset="n")
    assert rows["n"].sum() == 855 and rows["flips"].sum() == 0
    assert rows["deviation"].max() < 0.02


def test_a_mask_by_indexed_update_sends_as_little_as_a_gather_and_computes_longest():
    """Oracle: the engine's counts of a layer that keeps a tenth of its ReLUs, as the page explains the report by."""
    rows = committed("spu_operations").query("operation.str.startswith('mask') and rows == 8000")
    for _, part in rows.groupby("protocol"):
        sent, seconds = (part.set_index("operation")[of] for of in ("bytes", "seconds"))
        assert sent["mask (gather)"] == sent["mask (scatter)"] == sent["mask (none)"] / 10 < sent["mask (multiply)"]
        assert sent["mask (multiply)"] > sent["mask (none)"] and seconds.idxmax() == "mask (scatter)"

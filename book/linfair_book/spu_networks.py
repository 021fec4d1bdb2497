"""Private answers of linearized networks, measured: `python -m linfair_book.spu_networks` (`make mpc` first).

An MLP and a thin ResNet18 on digits with seeded weights and random masks, which bytes and rounds do not depend on: at
each budget one private answer under each protocol, and of the MLP under SEMI2K some test images of each group, to see
how far fixed-point scores are off and whether a prediction flips. Other executions of the mask than `gather` are
measured under SEMI2K; `layer` computes another function, so nothing is compared.
"""

import copy
import sys
from functools import partial

import pandas as pd
import torch

from linfair import gates
from linfair.data import GroupedData, load_data
from linfair.inference import private_answer, to_onnx
from linfair.inference.spu import Answer, compared
from linfair.models import build
from linfair_book.tables import place, save

BUDGETS = (1.0, 0.5, 0.2, 0.02, 0.0)
WIDTHS = {"mlp": 64, "resnet18": 8}
EACH = {"mlp": {"semi2k": 6, "aby3": 0}, "resnet18": {"semi2k": 0, "aby3": 0}}
"""Protocols, and images of a group; with 0 one image in all."""


def drawn(share: float, _: str, alpha: torch.Tensor) -> torch.Tensor:
    """A random share of the units."""
    return (torch.rand(alpha.shape) < share).float()


def students(name: str) -> tuple[GroupedData, dict[float, torch.nn.Module]]:
    """The data, and the network at each budget."""
    data = load_data("digits", seed=0)
    torch.manual_seed(0)
    network = build(name, data.input_shape, data.classes, width=WIDTHS[name]).eval()
    whole = gates.binarise(gates.install(network, data.input_shape))
    return data, {one: gates.set_alphas(copy.deepcopy(whole), partial(drawn, one)) for one in BUDGETS}


def row(answer: Answer, model: torch.nn.Module, **known: object) -> dict[str, object]:
    """What is known of one answer."""
    kept, total = int(gates.kept_units(model)), gates.total_units(model)
    sizes = {"kept": kept, "total": total, "bytes": answer.sent_bytes, "rounds": answer.rounds}
    how = {"field": answer.field, "fraction_bits": answer.fraction_bits, "spu": answer.versions["spu"]}
    spent = {f"seconds_{stage}": answer.seconds[stage] for stage in ("compile", "share", "run", "reveal")}
    once = {"once_bytes": answer.setup[0], "once_rounds": answer.setup[1]}
    return known | {"protocol": answer.protocol, "parties": answer.parties} | sizes | once | spent | how


def measured(name: str) -> list[dict[str, object]]:
    """The rows of one network: one for each group where scores were compared, else one."""
    data, networks = students(name)
    rows = []
    for budget, network in networks.items():
        known = {"data": "digits", "network": name, "seed": 0, "budget": budget}
        for protocol in EACH[name]:
            answer, groups = compared(network, data, protocol, each=EACH[name][protocol])
            one = row(answer, network, **known, execution="gather")
            rows += [one | of for of in groups.to_dict("records")]
            print(name, budget, protocol, one["kept"], one["bytes"], one["rounds"], groups.max(), file=sys.stderr)
        for execution in ("multiply", "layer") if budget in (0.5, 0.2, 0.02) else ():
            file = to_onnx(network, data.input_shape, execution=execution)
            answer = private_answer(file, data.normalise(data.splits["test"].x[:1]))
            rows.append(row(answer, network, **known, execution=execution))
    return rows


if __name__ == "__main__":
    table = pd.DataFrame([one for name in sys.argv[1:] or WIDTHS for one in measured(name)])
    save(table, place("spu_networks"))

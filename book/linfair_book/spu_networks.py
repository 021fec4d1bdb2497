"""Private answers of linearized networks, measured: `python -m linfair_book.spu_networks` (`make mpc` first).

An MLP and a thin ResNet18 on digits, one seed, SNL: at each budget one private answer under each protocol, and a few
test images of each group to see how far fixed-point scores are off and whether a prediction flips. At 0 % the
student of the least budget loses its last ReLUs untrained. Other executions of the mask than `gather` are measured
under SEMI2K; `layer` computes another function, so nothing is compared.
"""

import copy
import sys

import pandas as pd
import torch

from linfair import gates
from linfair.data import load_data
from linfair.inference import PROTOCOLS, private_answer, to_onnx
from linfair.inference.spu import Answer, compared
from linfair.linearizers import linearize
from linfair.models import build
from linfair.study.recipes import recipe
from linfair.training import fit
from linfair_book.tables import place, save

NETWORKS = {"mlp": (0.8, 0.6, 0.5, 0.4, 0.2, 0.02), "resnet18": (0.5, 0.2, 0.02)}
PROFILES = {"mlp": "small", "resnet18": "smoke"}  # of training; bytes and rounds do not depend on it
WIDTHS = {"mlp": 64, "resnet18": 8}
EACH = {"mlp": {"semi2k": 6, "aby3": 0, "cheetah": 0}, "resnet18": {"semi2k": 3, "aby3": 0, "cheetah": 0}}
"""Images of a group; with 0 one image in all, as Cheetah's encryption takes seconds for each."""


def students(name: str) -> tuple[object, dict[float, torch.nn.Module]]:
    """The data, and a network at each budget, 1 and 0 among them."""
    data, chosen = load_data("digits", seed=0), recipe(name, PROFILES[name])
    torch.manual_seed(0)
    teacher = build(name, data.input_shape, data.classes, width=WIDTHS[name])
    fit(teacher, data, schedule=chosen.base)
    found = linearize(teacher, data, budgets=NETWORKS[name], profile=PROFILES[name], progress=False)
    networks = {1.0: gates.binarise(gates.install(teacher, data.input_shape)).eval()}
    networks |= {one.budget: one.model.eval() for one in found}
    last = copy.deepcopy(found[-1].model)
    return data, networks | {0.0: gates.set_alphas(last, lambda _, alpha: torch.zeros_like(alpha)).eval()}


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
        for protocol in PROTOCOLS:
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
    table = pd.DataFrame([one for name in sys.argv[1:] or NETWORKS for one in measured(name)])
    save(table, place("spu_networks"))

"""Private answers of linearized networks, measured: `python tests/benchmarks/spu_networks.py` (`make mpc` first).

An MLP and a thin ResNet18, trained on digits and linearized with SNL, seed 0: at each budget one private answer under
each protocol, and under most of them test images of each group, to see how far fixed-point scores are off and whether a
prediction flips. At 0 % the network of the smallest budget loses its last ReLUs and is not trained again. Three parties
of SEMI2K, and executions of the mask other than `gather`, answer for one image; `layer` computes another function.
"""

import copy
from collections.abc import Iterator

import pandas as pd
import torch
from linfair_book.tables import place, save

from linfair import gates
from linfair.data import GroupedData
from linfair.engine.store import ResultStore
from linfair.ensemble import member_of
from linfair.inference import private_answer, to_onnx
from linfair.inference.spu import Answer, compared
from linfair.study.cell import Worker
from linfair.study.grids import grid

TABLE = "spu_networks"
BUDGETS = (0.5, 0.2, 0.02)
EACH = {"mlp": {"semi2k": 6, "aby3": 6, "cheetah": 2}, "resnet18": {"semi2k": 2, "aby3": 2, "cheetah": 0}}
"""Protocols, and images of a group; with 0 one image in all."""


def students(name: str) -> tuple[GroupedData, dict[float, torch.nn.Module]]:
    """The data, and the network at each budget, fine-tuned."""
    [cell] = grid("digits", name, budgets=BUDGETS, seeds=[0])
    worker = Worker(cell, ResultStore.default(), progress=True)
    [data] = worker.sets
    found = {1.0: gates.binarise(gates.install(member_of(worker.teacher.model, 0), data.input_shape))}
    found |= {one.budget: member_of(one.model, 0) for one in worker.students("plain")}
    found[0.0] = gates.set_alphas(copy.deepcopy(found[BUDGETS[-1]]), lambda _, alpha: torch.zeros_like(alpha))
    return data, found


def row(answer: Answer, model: torch.nn.Module, **known: object) -> dict[str, object]:
    """What is known of one answer."""
    sizes = {"kept": int(gates.kept_units(model)), "total": gates.total_units(model)}
    sent = {"bytes": answer.sent_bytes, "rounds": answer.rounds}
    how = {"field": answer.field, "fraction_bits": answer.fraction_bits, "spu": answer.versions["spu"]}
    spent = {f"seconds_{stage}": answer.seconds[stage] for stage in ("compile", "share", "run", "reveal")}
    once = {"once_bytes": answer.setup[0], "once_rounds": answer.setup[1]}
    return known | {"protocol": answer.protocol, "parties": answer.parties} | sizes | sent | once | spent | how


def measured(name: str) -> Iterator[list[dict[str, object]]]:
    """The rows of one answer after another: one for each group where scores were compared, else one."""
    data, networks = students(name)
    image = data.normalise(data.splits["test"].x[:1])
    for budget, network in networks.items():
        known = {"data": "digits", "network": name, "seed": 0, "budget": budget}
        for protocol, each in EACH[name].items():
            answer, groups = compared(network.eval(), data, protocol, each=each)
            one = row(answer, network, **known, execution="gather")
            yield [one | of for of in groups.to_dict("records")]
        executions = ("multiply", "layer") if budget in BUDGETS else ()
        for execution, parties in (("gather", 3), *((one, 2) for one in executions)):
            file = to_onnx(network, data.input_shape, execution=execution)
            yield [row(private_answer(file, image, parties=parties), network, **known, execution=execution)]


if __name__ == "__main__":
    table = pd.DataFrame()
    for name in EACH:
        for rows in measured(name):
            table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
            save(table, place(TABLE))
            print(table.iloc[-1].to_dict())

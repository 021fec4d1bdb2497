"""A network as ONNX, for engines of private inference: the mask, batch norm and pruning folded into the graph.

A site of which every unit is kept becomes one Relu, one of which none is kept nothing. Where a part is kept, with x the
site's units, flattened, and m the mask, 1 where a unit is kept,

    gather:    concat(x, Relu(x[kept]))[place],  place[u] = u for a linear unit, else where its ReLU stands behind x
    multiply:  x + m (Relu(x) - x)
    layer:     Relu(x), another function: to measure what it costs, not to be used

so that an engine computes as many comparisons as the mask keeps ReLUs only for `gather`. Gathering by public places is
no communication between parties.
"""

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import torch
from torch import Tensor, nn

import linfair
from linfair import gates, weights
from linfair.callsites import UngatedReLU
from linfair.ensemble import Ensemble
from linfair.functional import by_products
from linfair.masks import RELUS
from linfair.models import StandardisedConv2d
from linfair.theory.folding import fold_batch_norm

OPSET = 18
EXECUTIONS = ("gather", "multiply", "layer")  #: How a site is computed of which the mask keeps a part


class ExportError(ValueError):
    """A network that cannot be written as ONNX; the message says why."""


relu = UngatedReLU()  # which no functional ReLU's gate takes for its own


class Gather(nn.Module):
    """The ReLU of kept units alone, taken out and put back by place."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        places, units = torch.arange(kept.numel()), kept.flatten().nonzero().flatten()
        places[units] = kept.numel() + torch.arange(len(units))
        self.register_buffer("units", units)
        self.register_buffer("places", places)

    def forward(self, input: Tensor) -> Tensor:
        """ReLU where a unit is kept, the identity elsewhere."""
        flat = input.flatten(1)
        both = torch.cat([flat, relu(flat.index_select(1, self.units))], 1)
        return both.index_select(1, self.places).reshape(-1, *input.shape[1:])


class Multiply(nn.Module):
    """The ReLU of all units, multiplied by the mask."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", kept.float())

    def forward(self, input: Tensor) -> Tensor:
        """ReLU where a unit is kept, the identity elsewhere."""
        return input + self.mask * (relu(input) - input)


def to_onnx(
    network: nn.Module, input_shape: tuple[int, ...], *, execution: str = "gather", notes: Mapping[str, str] = {}
) -> bytes:
    """Write a gated, pruned or plain network, in evaluation mode, as ONNX, and run it to see that it is the same.

    Args:
        network: Any network that answers with one tensor; gates must be 0 or 1.
        input_shape: Shape of one input, without the batch, whose size stays free.
        execution: One of `EXECUTIONS`.
        notes: More of the file's metadata.

    Returns:
        The file: one input `input` (batch, *input_shape), what the network takes, and one output `logits`. Its
        metadata say how many ReLUs or weights the network keeps, and how a part of a site is computed.

    Raises:
        ExportError: For gates between 0 and 1, or a network that torch cannot write as ONNX.
        ImportError: Without the packages of the extra `export`.
    """
    try:
        import onnxruntime.capi.onnxruntime_pybind11_state as runtime  # what runs the file
        import onnxscript  # noqa: F401 - what torch writes it by
    except ImportError as error:
        raise ImportError("ONNX is missing: pip install 'linfair[export]'", name=error.name) from error
    if isinstance(network, Ensemble):
        raise ExportError("this is an ensemble; export its networks one by one, `ensemble.networks()`")
    name, network = type(network).__name__, copy.deepcopy(network).cpu().float().eval()
    folded, counts = as_computed(network, execution)
    inputs = torch.randn(5, *input_shape, generator=torch.Generator().manual_seed(0))
    named = {"input_names": ["input"], "output_names": ["logits"], "dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)}
    with torch.no_grad():
        if not isinstance(scores := network(inputs), Tensor):
            raise ExportError(f"{name} answers with {type(scores).__name__}; it must answer with one tensor of scores")
    try:
        with _silence(), torch.no_grad(), by_products():
            made = torch.onnx.export(folded, (inputs,), dynamo=True, opset_version=OPSET, verbose=False, **named)
    except torch.onnx.OnnxExporterError as error:
        why = " ".join(str(error.__cause__ or error).split())[:300]
        raise ExportError(f"torch cannot write {name} as ONNX: {why}") from error
    file = _plain(made.model_proto, {"linfair": linfair.__version__, "execution": execution, **counts, **notes})
    for x in (inputs, inputs[:1]):
        try:
            apart = difference(file, folded if execution == "layer" else network, x)
        except (runtime.Fail, runtime.InvalidGraph, runtime.NotImplemented, runtime.RuntimeException) as error:
            why = " ".join(str(error).split())[:300]
            raise ExportError(f"torch writes {name} as ONNX that does not run, ONNX Runtime says: {why}") from error
        if not apart <= 1e-3:
            text = f"{name} as ONNX computes something else, {apart:.2g} of its largest score apart on {len(x)} random "
            text += "inputs: its forward draws at random, or hangs on the size of the batch or on the values it gets"
            raise ExportError(text)
    return file


@contextmanager
def _silence() -> Iterator[None]:
    """Keep from a user what torch's exporter says about itself and about every way that it tried."""
    before, rest = logging.root.manager.disable, io.StringIO()
    logging.disable()
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(rest), redirect_stderr(rest):
            yield
    finally:
        logging.disable(before)


def difference(file: bytes, network: nn.Module, inputs: Tensor) -> float:
    """Largest difference between the scores of a file, by ONNX Runtime, and of its network, over the largest score.

    Scores below 1 count as 1.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network(inputs)
    (found,) = map(torch.from_numpy, session.run(None, {"input": inputs.numpy()}))
    if found.shape != expected.shape:
        return torch.inf
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def as_computed(network: nn.Module, execution: str) -> tuple[nn.Module, dict[str, str]]:
    """A copy as an engine computes it, and how many ReLUs or weights it keeps."""
    if execution not in EXECUTIONS:
        raise ExportError(f"no execution {execution!r}; there are {', '.join(EXECUTIONS)}")
    counts = {}
    if weights.switches(network):
        counts["weights"] = f"{weights.WEIGHTS.kept(network)[0]} of {weights.WEIGHTS.total(network)}"
        network = weights.plain(network)
    if gates.sites(network):
        counts["relus"] = f"{RELUS.kept(network)[0]} of {RELUS.total(network)}"
    network = copy.deepcopy(network).double()
    for module in network.modules():
        if isinstance(module, StandardisedConv2d):
            module.weight.data, module.__class__ = module.standardised().detach(), nn.Conv2d
    folded = fold_batch_norm(network).float()
    for site, gate in gates.sites(folded).items():
        kept = gate.alpha.detach() == 1
        if not torch.equal(kept.float(), gate.alpha.detach()):
            text = f"the gate {site} has weights between 0 and 1, which no ReLU is; call "
            raise ExportError(f"{text}linfair.gates.binarise first")
        part = {"gather": Gather, "multiply": Multiply}.get(execution, lambda _: relu)
        folded.set_submodule(site, relu if kept.all() else part(kept) if kept.any() else nn.Identity())
    return folded, counts


def _plain(model: object, notes: Mapping[str, str]) -> bytes:
    """A `ModelProto` without what torch notes in it, paths of this machine among them, and with our own notes."""
    graph = model.graph
    for part in [*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output, graph, model]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString(deterministic=True)

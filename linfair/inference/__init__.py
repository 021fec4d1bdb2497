"""Private inference: a reduced network as a file, and one private answer of an engine. Start at `to_onnx`."""

from linfair.inference.export import ExportError, difference, to_onnx
from linfair.inference.spu import PROTOCOLS, Answer, EngineMissing, private_answer

"""Private inference: a reduced network as a file that an engine runs. Start at `to_onnx`."""

from linfair.inference.export import ExportError, to_onnx

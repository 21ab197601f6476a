"""The trained network as ONNX: a word table and one native LSTM operator, without a mask.

    ids (1, time) -> table row of each -> LSTM -> states (time, width)

Written operator by operator: with a mask, or by a converter, the LSTM becomes loops. Keras keeps
the gates in the order input, forget, cell, output; ONNX wants input, output, forget, cell.
"""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from mlapp.families.network import Head, Pooling, Weights

OPSET = 17  # of the operators
IR_VERSION = 9  # of the file; read by every onnxruntime since 1.16


def export_network(network: keras.Model, int8: bool = False) -> bytes:
    """Return a network that `training.network.build` made, as ONNX.

    Args:
        network: the trained network.
        int8: whether the table and the LSTM's weights become 8-bit integers, the table with a
            scale per word, the weights with one per direction, which is the quickest, and within
            -64 to 64, so that every processor answers alike; what flows between is quantized as
            it comes.
    """
    table = np.asarray(network.get_layer("table").get_weights()[0])
    names = [layer.name for layer in network.layers]
    if "both" in names:
        both = network.get_layer("both")
        cells = [both.forward_layer.get_weights(), both.backward_layer.get_weights()]
    else:
        cells = [network.get_layer("lstm").get_weights()]
    units = cells[0][1].shape[0]
    inputs = np.stack([_gates(kernel.T, units) for kernel, _, _ in cells])
    recurrent = np.stack([_gates(kernel.T, units) for _, kernel, _ in cells])
    # Keras adds one bias, ONNX two.
    biases = np.stack([np.append(_gates(bias, units), np.zeros(4 * units)) for *_, bias in cells])
    constants = {"W": inputs, "R": recurrent, "B": biases.astype(np.float32)}
    nodes, tables = _look_up(table, int8)
    constants |= tables
    width = len(cells) * units
    constants |= {"flat": np.array([-1]), "shape": np.array([-1, width])}
    nodes = [
        helper.make_node("Reshape", ["ids", "flat"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "one"], ["words"]),
        *nodes,
        helper.make_node(
            "LSTM",
            ["vectors", "W", "R", "B"],
            ["all"],
            hidden_size=units,
            direction="bidirectional" if len(cells) == 2 else "forward",
        ),
        # (time, directions, 1, units) to (time, width): the directions already lie side by side.
        helper.make_node("Reshape", ["all", "shape"], ["states"]),
    ]
    constants["one"] = np.array([1])
    graph = helper.make_graph(
        nodes,
        "sentiment",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "time"])],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["time", width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    return _quantize(model) if int8 else bytes(model.SerializeToString())


def _look_up(table: Any, int8: bool) -> tuple[list[Any], dict[str, Any]]:
    """Return the nodes that turn words into vectors, and their constants.

    Args:
        table: the vectors, (words, width).
        int8: whether they become 8-bit integers, with a scale for each word.
    """
    if not int8:
        return [helper.make_node("Gather", ["table", "words"], ["vectors"])], {"table": table}
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
    constants = {
        "table": np.round(table / scale).astype(np.int8),
        "scale": scale.astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "words"], ["bytes"]),
        helper.make_node("Gather", ["scale", "words"], ["scales"]),
        helper.make_node("Cast", ["bytes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scales"], ["vectors"]),
    ]
    return nodes, constants


def export_head(network: keras.Model, pooling: Pooling, temperature: float = 1.0) -> Head:
    """Return the network's last layer, for serving."""
    kernel, bias = network.get_layer("head").get_weights()
    return Head(kernel.astype(np.float64), bias.astype(np.float64), temperature, pooling)


def _gates(weights: Weights, units: int) -> npt.NDArray[np.float32]:
    """Return the rows of four gates (4 * units, ...) in the order of ONNX."""
    entry, forget, cell, output = (weights[at * units : (at + 1) * units] for at in range(4))
    return np.concatenate([entry, output, forget, cell]).astype(np.float32)


def _quantize(model: onnx.ModelProto) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        quantize_dynamic(
            before,
            after,
            op_types_to_quantize=["LSTM"],
            weight_type=QuantType.QInt8,
            # With 8 bits, sums saturate on processors that have AVX2 and no VNNI.
            reduce_range=True,
        )
        return after.read_bytes()

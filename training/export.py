"""The trained network as ONNX: a word table and one native LSTM operator, without a mask.

    ids (texts, time) -> table row of each -> LSTM -> states (texts, time, width)

`lengths` (texts,) says how long each text is; its states behind that mean nothing. Written operator
by operator: with a mask, or by a converter, the LSTM becomes loops. Keras keeps the gates in the
order input, forget, cell, output; ONNX wants input, output, forget, cell.

With 8-bit weights, what flows into the LSTM and between its steps is rounded to 8 bits, over the
range that it has in all texts of a call. A text's states must not depend on which texts come with
it, so the range is made the same for all: every word's vector gets two more dimensions that hold
the largest and the smallest number of the table, and the LSTM two more units that are as large, and
as small, as a unit can be after so many steps. Nothing is read from either.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from mlapp.families.network import Head, Pooling, Weights

OPSET = 17  # of the operators
IR_VERSION = 9  # of the file; read by every onnxruntime since 1.16
OPEN = 30.0  # a gate with this bias is open, in single precision


def export_network(network: keras.Model, int8: bool = False) -> bytes:
    """Return a network that `training.network.build` made, as ONNX.

    Args:
        network: the trained network.
        int8: whether the table and the LSTM's weights become 8-bit integers, the table with one
            scale, the weights with one per direction, which is the quickest; what flows between is
            rounded as it comes.
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
    biases = np.stack([_gates(bias, units) for *_, bias in cells])
    return export_weights(table, inputs, recurrent, biases, int8)


def export_weights(
    table: Weights, inputs: Weights, recurrent: Weights, biases: Weights, int8: bool
) -> bytes:
    """Return an LSTM over a table of words, as ONNX.

    Args:
        table: a vector per word, (words, dimensions).
        inputs: what each direction makes of a vector, (directions, 4 * units, dimensions).
        recurrent: what it makes of its state, (directions, 4 * units, units).
        biases: (directions, 4 * units).
        int8: as in `export_network`.
    """
    directions, _, units = recurrent.shape
    constants = {"table": table}
    nodes = [helper.make_node("Transpose", ["ids"], ["words"], perm=[1, 0])]
    if int8:
        scale = max(float(np.abs(table).max()), 1e-12) / 127
        constants["table"] = np.pad(np.round(table / scale).astype(np.int8), ((0, 0), (0, 2)))
        constants["table"][:, -2:] = 127, -128
        constants["scale"] = np.float32(scale)
        inputs, recurrent, biases = _steady(inputs, recurrent, biases)
        nodes += [
            helper.make_node("Gather", ["table", "words"], ["bytes"]),
            helper.make_node("Cast", ["bytes"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["floats", "scale"], ["vectors"]),
        ]
    else:
        nodes.append(helper.make_node("Gather", ["table", "words"], ["vectors"]))
    constants |= {
        "W": inputs,
        "R": recurrent,
        "B": np.concatenate([biases, np.zeros_like(biases)], axis=1),  # ONNX adds two
        "from": np.array([0]),
        "to": np.array([units]),
        "last": np.array([3]),
        "shape": np.array([0, 0, directions * units]),
    }
    nodes += [
        helper.make_node(
            "LSTM",
            ["vectors", "W", "R", "B", "lengths"],
            ["all"],
            hidden_size=recurrent.shape[2],
            direction="bidirectional" if directions == 2 else "forward",
        ),
        helper.make_node("Slice", ["all", "from", "to", "last"], ["own"]),
        # (time, directions, texts, units) to (texts, time, width)
        helper.make_node("Transpose", ["own"], ["turned"], perm=[2, 0, 1, 3]),
        helper.make_node("Reshape", ["turned", "shape"], ["states"]),
    ]
    width = directions * units
    graph = helper.make_graph(
        nodes,
        "sentiment",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["texts", "time"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["texts"]),
        ],
        [helper.make_tensor_value_info("states", TensorProto.FLOAT, ["texts", "time", width])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    return _quantize(model) if int8 else bytes(model.SerializeToString())


def export_head(network: keras.Model, pooling: Pooling, temperature: float = 1.0) -> Head:
    """Return the network's last layer, for serving."""
    kernel, bias = network.get_layer("head").get_weights()
    return Head(kernel.astype(np.float64), bias.astype(np.float64), temperature, pooling)


def _gates(weights: Weights, units: int) -> npt.NDArray[np.float32]:
    """Return the rows of four gates (4 * units, ...) in the order of ONNX."""
    entry, forget, cell, output = (weights[at * units : (at + 1) * units] for at in range(4))
    return np.concatenate([entry, output, forget, cell]).astype(np.float32)


def _steady(
    inputs: Weights, recurrent: Weights, biases: Weights
) -> tuple[Weights, Weights, Weights]:
    """Add two dimensions that nothing is read from, and two units that are at either end.

    After n steps no unit is beyond tanh(n), which is where these two are: all their gates are open,
    and each step adds 1 to the one cell and -1 to the other.
    """
    directions, _, units = recurrent.shape
    split = (directions, 4, units, -1)
    more = ((0, 0), (0, 0), (0, 2), (0, 2))
    inputs = np.pad(inputs.reshape(split), more)
    recurrent = np.pad(recurrent.reshape(split), more)
    biases = np.pad(biases.reshape(split), more[:3] + ((0, 0),))
    biases[:, :, units:] = OPEN
    biases[:, 3, units + 1 :] = -OPEN
    wide = (directions, 4 * (units + 2), -1)
    return inputs.reshape(wide), recurrent.reshape(wide), biases.reshape(wide[:2])


def _quantize(model: onnx.ModelProto) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        quantize_dynamic(
            before,
            after,
            op_types_to_quantize=["LSTM"],
            weight_type=QuantType.QInt8,
        )
        return after.read_bytes()

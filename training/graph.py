"""A graph of ONNX operators as it is written, in double precision but for sums of XGBoost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, ML_OPSET = 17, 5  # of the operators; the second has trees in double precision
IR_VERSION = 9  # of the file


class NotCompiled(Exception):
    """What is no part of any graph of ours, and why."""


@dataclass(frozen=True)
class Origin:
    """Where a column comes from: it is (values of `source` - `shift`) / `scale`."""

    source: int
    shift: float = 0.0
    scale: float = 1.0


@dataclass
class Block:
    """Columns (n, k) in one tensor.

    Attributes:
        tensor: its name.
        codes: of each column, the number that stands for each category; None for numbers.
        origins: of each column, what it is of an input, where it is one stretched and shifted.
    """

    tensor: str
    codes: list[dict[str, float] | None]
    origins: list[Origin | None]

    def __len__(self) -> int:
        return len(self.codes)

    def numbers(self) -> "Block":
        """Return the block itself if all its columns are numbers.

        Raises:
            NotCompiled: one is a category.
        """
        if any(each is not None for each in self.codes):
            raise NotCompiled("a step takes categories as they are")
        return self


@dataclass
class Graph:
    """Operators and constants.

    Attributes:
        thresholds: where trees turn, by the input's place.
        opsets: the versions of the operators, by domain.
    """

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    thresholds: dict[int, list[float]] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=lambda: {"": OPSET, "ai.onnx.ml": ML_OPSET})

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append an operator, and return the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.float64) -> str:
        """Add a constant, and return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def double(self, tensor: str) -> str:
        """Return a tensor as doubles."""
        return self.op("Cast", tensor, to=TensorProto.DOUBLE)

    def single(self, tensor: str) -> str:
        """Return a tensor as floats of single precision."""
        return self.op("Cast", tensor, to=TensorProto.FLOAT)

    def floats(self, tensor: str) -> str:
        """Return a tensor rounded to single precision, as doubles."""
        return self.double(self.single(tensor))

    def pick(self, block: Block, places: Sequence[int]) -> Block:
        """Return some columns of a block, in some order."""
        if list(places) == list(range(len(block))):
            return block
        tensor = self.op("Gather", block.tensor, self.constant(places, np.int64), axis=1)
        return Block(
            tensor, [block.codes[each] for each in places], [block.origins[each] for each in places]
        )

    def join(self, blocks: Sequence[Block]) -> Block:
        """Return the columns of blocks side by side."""
        if len(blocks) == 1:
            return blocks[0]
        tensor = self.op("Concat", *(each.tensor for each in blocks), axis=1)
        return Block(
            tensor,
            [codes for each in blocks for codes in each.codes],
            [origin for each in blocks for origin in each.origins],
        )

    def weigh(self, tensor: str, weights: Any, bias: Any) -> str:
        """Return x @ weights + bias, (n, m), for x (n, k), weights (k, m) and bias (m,).

        A sum along the row, not a product of matrices: that would round a row by the rows that it
        comes with.
        """
        columns = [
            self.op(
                "ReduceSum",
                self.op("Mul", tensor, self.constant(column)),
                self.constant([1], np.int64),
                keepdims=1,
            )
            for column in np.asarray(weights, dtype=np.float64).T
        ]
        whole = columns[0] if len(columns) == 1 else self.op("Concat", *columns, axis=1)
        return self.op("Add", whole, self.constant(np.asarray(bias).reshape(1, -1)))

    def finish(self, given: tuple[str, int], outputs: Mapping[str, tuple[str, int]]) -> Any:
        """Return the model.

        Args:
            given: the input's name and its width.
            outputs: the tensor and the width of each output, by its name.
        """
        for name, (tensor, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [name]))
        graph = helper.make_graph(
            self.nodes,
            "table",
            [helper.make_tensor_value_info(given[0], TensorProto.DOUBLE, ["n", given[1]])],
            [
                helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", width])
                for name, (_, width) in outputs.items()
            ],
            self.constants,
        )
        opsets = [helper.make_opsetid(*each) for each in self.opsets.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model


def dump(model: Any, metadata: Mapping[str, str]) -> bytes:
    """Return a model with its metadata as the bytes of a file."""
    helper.set_model_props(model, dict(metadata))
    return bytes(model.SerializeToString())

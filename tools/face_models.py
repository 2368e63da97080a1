"""Face models of the true signature of insightface's, with seeded random weights: a detector and an ArcFace.

They show that everything runs, not what it can do: the faces that the detector finds are anywhere, or always in the
middle of the picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
ANCHORS = 2  # of each place
# Distances from the middle, in the largest stride: of a box's sides; of the eyes, the nose, and the mouth's corners.
BOX = (4.0, 4.5, 4.0, 4.5)
LANDMARKS = (-1.4, -1.2, 1.4, -1.2, 0.0, 0.2, -1.1, 1.6, 1.1, 1.6)


class OnnxGraph:
    """An ONNX model in the making."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """A node; the name of its one output."""
        name = name or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def convolution(self, source: str, channels: int, width: int, size: int, scale: float, bias: Any) -> str:
        """Random, of patches that do not overlap."""
        weight = self.random.normal(0, scale / (channels * size * size) ** 0.5, (width, channels, size, size))
        names = self.constant(weight.astype(np.float32)), self.constant(np.asarray(bias, np.float32))
        return self.add("Conv", source, *names, strides=[size, size], kernel_shape=[size, size])

    def save(self, path: Path, inputs: Any, outputs: list[Any]) -> None:
        graph = helper.make_graph(self.nodes, path.stem, [inputs], outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(path))


def detector(
    path: Path, seed: int = 0, in_the_middle: bool = False, has_landmarks: bool = True, on_grey_ground: bool = False
) -> None:
    """[1, 3, H, W] to nine outputs: scores, distances of boxes and of landmarks, for each of three strides.

    in_the_middle: one face is found, in the middle; else some anywhere. on_grey_ground: the one in the middle is only
    found where the corner of what is looked at is grey.
    """
    graph = OnnxGraph(seed)
    named: dict[tuple[int, int], Any] = {}
    for stride in STRIDES:
        is_last = stride == STRIDES[-1]
        for part, (width, centre) in enumerate(((1, (0.0,)), (4, BOX), (10, LANDMARKS))[: 2 + has_landmarks]):
            scale, bias = (
                (8.0, [-4.0] * ANCHORS) if part == 0 else (0.05, [x * (1 + is_last) / 2 for x in centre] * ANCHORS)
            )
            values = graph.convolution("input.1", 3, width * ANCHORS, stride, scale, bias)
            rows = graph.add("Transpose", values, perm=[0, 2, 3, 1])
            rows = graph.add("Reshape", rows, graph.constant(np.array([-1, width])))
            if part == 0 and in_the_middle:
                rows = (
                    _only_middle(graph, values, rows, on_grey_ground)
                    if is_last
                    else graph.add("Sub", rows, graph.constant(np.float32(99)))
                )
            name = f"{part}_{stride}"
            graph.add("Sigmoid" if part == 0 else "Identity", rows, name=name)
            named[part, stride] = helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
    shape = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph.save(path, shape, [named[key] for key in sorted(named)])


def _only_middle(graph: OnnxGraph, values: str, rows: str, on_grey_ground: bool) -> str:
    """Scores that are high in the middle place alone; on a grey ground, if asked for, and nowhere on another."""
    sizes = graph.add("Shape", values)
    height, width = (graph.add("Gather", sizes, graph.constant(np.array(axis))) for axis in (2, 3))
    half = [graph.add("Div", size, graph.constant(np.array(2))) for size in (height, width)]
    place = graph.add("Add", graph.add("Mul", half[0], width), half[1])
    place = graph.add("Mul", place, graph.constant(np.array(ANCHORS)))
    count = graph.add("Mul", graph.add("Mul", height, width), graph.constant(np.array(ANCHORS)))
    numbers = graph.add("Range", graph.constant(np.array(0)), count, graph.constant(np.array(1)))
    is_middle = graph.add("Cast", graph.add("Equal", numbers, place), to=TensorProto.FLOAT)
    column = graph.add("Unsqueeze", is_middle, graph.constant(np.array([1])))
    raised = graph.add("Mul", column, graph.constant(np.float32(198)))
    scores = graph.add("Add", graph.add("Add", rows, raised), graph.constant(np.float32(-99)))
    if not on_grey_ground:
        return scores
    corner = graph.add("Gather", rows, graph.constant(np.array([0])))  # its bias alone where the corner is grey
    contrast = graph.add("Abs", graph.add("Sub", corner, graph.constant(np.float32(-4))))
    return graph.add("Sub", scores, graph.add("Mul", contrast, graph.constant(np.float32(99))))


def recogniser(path: Path, seed: int = 1) -> None:
    """[N, 3, 112, 112] to identities [N, 512] of ArcFace's usual length, about 20."""
    graph = OnnxGraph(seed)
    values = graph.add("Relu", graph.convolution("input.1", 3, 16, 16, 2.0, np.zeros(16)))
    flat = graph.add("Flatten", values)
    weight = graph.random.normal(0, 1 / 28, (16 * 49, 512)).astype(np.float32)
    graph.add("Gemm", flat, graph.constant(weight), name="identity")
    shape = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [None, 3, 112, 112])
    graph.save(path, shape, [helper.make_tensor_value_info("identity", TensorProto.FLOAT, [None, 512])])

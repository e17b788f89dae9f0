"""A fitted estimator as an ONNX model, to predict with any runtime. Needs onnx: ``pip install "fastmlp[onnx]"``."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastmlp.activations import LEAK

OPSET, IR = 20, 10  # the first with Gelu, and the file format that goes with it
# The operators that an activation is made of; of Mul the second argument is the layer's z.
OPERATORS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "identity": (),
    "relu": (("Relu", {}),),
    "logistic": (("Sigmoid", {}),),
    "tanh": (("Tanh", {}),),
    "leaky_relu": (("LeakyRelu", {"alpha": LEAK}),),
    "elu": (("Elu", {}),),
    "gelu": (("Gelu", {"approximate": "tanh"}),),
    "silu": (("Sigmoid", {}), ("Mul", {})),
    "softmax": (("Softmax", {"axis": 1}),),
    "exp": (("Exp", {}),),
}


class Graph:
    """A graph as it grows: nodes and constants, each named by its place."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        """A constant's name."""
        name = f"c{len(self.constants)}"
        self.constants.append(self.numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """The name of what an operator makes of its inputs."""
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def activate(self, name: str, z: str) -> str:
        """What an activation makes of z."""
        a = z
        for operator, attributes in OPERATORS[name]:
            a = self.add(operator, a, z, **attributes) if operator == "Mul" else self.add(operator, a, **attributes)
        return a


def to_onnx(model: Any) -> Any:
    """An ``onnx.ModelProto`` that takes X (N, I) of the weights' type.

    A classifier's outputs are "label", as `predict`, and "probabilities", as `predict_proba`; a regressor's is "y".
    Raises ImportError where onnx is not installed.
    """
    check_is_fitted(model)
    try:
        from onnx import helper
    except ImportError as error:
        raise ImportError("to_onnx needs onnx: pip install 'fastmlp[onnx]'") from error
    graph, x = Graph(), "X"
    names = (*model._activations(len(model.coefs_) - 1), model.out_activation_)
    for W, b, name in zip(model.coefs_, model.intercepts_, names, strict=True):
        z = graph.add("Gemm", x, graph.constant(np.ascontiguousarray(W)), graph.constant(b))  # (N, H)
        x = graph.activate(name, z)
    real, width = helper.np_dtype_to_tensor_dtype(model.coefs_[0].dtype), model.n_outputs_
    flat = ["N"] if width == 1 else ["N", width]  # the shape of a regressor's predictions
    if hasattr(model, "classes_"):
        add_answers(graph, model, x)
        label = ["N"] if model._one_label() else ["N", width]
        outputs = {"label": (label_type(model), label), "probabilities": (real, ["N", max(width, 2)])}
    else:
        graph.add("Reshape", x, graph.constant(np.array([-1, width][: len(flat)], np.int64)), output="y")
        outputs = {"y": (real, flat)}
    infos = [helper.make_tensor_value_info(name, *facts) for name, facts in outputs.items()]
    taken = helper.make_tensor_value_info("X", real, ["N", model.n_features_in_])
    made = helper.make_graph(graph.nodes, type(model).__name__, [taken], infos, graph.constants)
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="fastmlp"
    )


def add_answers(graph: Graph, model: Any, p: str) -> None:
    """Add "probabilities" and "label" to the graph, from the last layer's p (N, O)."""
    several = not model._one_label()
    if model.out_activation_ == "logistic" and not several:
        one = graph.constant(np.ones(1, model.coefs_[0].dtype))
        p = graph.add("Concat", graph.add("Sub", one, p), p, axis=1)  # (N, 2)
    graph.add("Identity", p, output="probabilities")
    if several:
        half = graph.constant(np.array(0.5, model.coefs_[0].dtype))
        graph.add("Cast", graph.add("Greater", p, half), output="label", to=int(label_type(model)))
        return
    classes = graph.constant(model.classes_ if model.classes_.dtype.kind not in "OU" else model.classes_.astype(object))
    graph.add("Gather", classes, graph.add("ArgMax", p, axis=1, keepdims=0), output="label", axis=0)


def label_type(model: Any) -> Any:
    """The type of the labels in ONNX."""
    from onnx import TensorProto, helper

    if not model._one_label():
        return TensorProto.INT64
    if model.classes_.dtype.kind in "OU":
        return TensorProto.STRING
    return helper.np_dtype_to_tensor_dtype(model.classes_.dtype)

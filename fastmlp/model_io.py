"""Model files: safetensors, with a JSON header that says what the tensors mean. Nothing is pickled."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.backends import select
from fastmlp.errors import ModelFileError
from fastmlp.files import write_beside_and_rename
from fastmlp.history import History
from fastmlp.inputs import Inputs
from fastmlp.network import Network, layer_views, parameter_count
from fastmlp.optimizers import find
from fastmlp.report import Report
from fastmlp.values import check_threads

if TYPE_CHECKING:
    from fastmlp.model import Model

KEY = "fastmlp"  # of the header, among the file's metadata
# Types of tensors that NumPy has, as safetensors calls them.
TYPES = {"BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "F16", "F32", "F64"}
VERSION = 2  # of the header; 1, which is read too, knew ReLU layers only and has no "network"


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write tensors W0, b0, W1, b1, ... (and mean, deviation where columns are standardised) and the header."""
    from safetensors.numpy import save as to_bytes

    tensors = {f"W{l}": W for l, W in enumerate(model.weights)} | {f"b{l}": b for l, b in enumerate(model.biases)}
    if model.inputs.mean is not None and model.inputs.deviation is not None:
        tensors |= {"mean": model.inputs.mean, "deviation": model.inputs.deviation}
    header = {
        "version": VERSION,
        "sizes": model.sizes,
        "network": {name: value for name, value in asdict(model.network).items() if name != "sizes"},
        "pixels": model.inputs.pixels,
        "columns": model.inputs.columns,
        "classes": model.classes.tolist(),
        "classes_type": model.classes.dtype.str,
        "history": json.loads(model.history.to_json()),
        "report": model.report.to_dict(),
    }
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_beside_and_rename(path, to_bytes(contiguous, metadata={KEY: json.dumps(header)}))


def load(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    threads: int | None = None,
    strict: bool = False,
    device: int = 0,
) -> Model:
    """Read a model that `Model.save` wrote.

    Parameters
    ----------
    path
        The file.
    backend, strict, device
        Where it shall run, as in `fastmlp.train`. The same backend as in training predicts the same bits.
    threads
        CPU threads at most; None leaves the library's own choice.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    OptionError
        `threads` is no whole number from 1.
    ModelFileError
        The file is cut short, of another kind, of a newer version, or its tensors do not fit its header.
    """
    from fastmlp.model import Model

    check_threads(threads)
    header, tensors = read(Path(path))
    try:
        sizes, parameters = read_parameters(header["sizes"], tensors)
        classes = np.array(header["classes"], np.dtype(header["classes_type"]))  # (O,)
        if classes.shape != (sizes[-1],) or classes.dtype.kind not in "biufU" or (classes[1:] <= classes[:-1]).any():
            raise ValueError(f"expected {sizes[-1]} different classes in order, got {header['classes']}")
        columns = read_columns(sizes[0], header.get("columns"))
        inputs = Inputs(sizes[0], bool(header["pixels"]), tensors.get("mean"), tensors.get("deviation"), columns)
        if not (inputs.mean is None and inputs.deviation is None):
            check_tensors(tensors, {"mean": (sizes[0],), "deviation": (sizes[0],)}, np.dtype(np.float64))
        network = read_network(sizes, header["network"] if header["version"] > 1 else {})
        history, report = History(**header["history"]), Report(**header["report"])
        find(report.optimizer)  # raises for what is not known
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ModelFileError(
            f"{path}: the header and the tensors do not fit each other ({error}); save it anew"
        ) from error
    chosen = select(backend, strict=strict, device=device)
    return Model(chosen.backend, network, parameters, classes, inputs, history, report, threads)


def read_network(sizes: list[int], given: dict[str, Any]) -> Network:
    """The network of the header. Raises ValueError or TypeError if there is none such."""
    parts: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in dict(given).items()
    }
    network = Network(tuple(sizes), **parts)
    _ = network.kinds, network.loss_kind  # raise for what is not known
    numbers = (network.dropout, *network.numbers)
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"expected finite numbers of the network, got {numbers}")
    if network.loss != "cross_entropy" or len(network.numbers) not in (0, 3) or not 0 <= network.dropout < 1:
        raise ValueError(f"expected cross entropy, with three numbers or none, and a share to leave out; got {given}")
    return network


def read_columns(features: int, given: Any) -> tuple[str, ...] | None:
    """The names of the columns, where the header has them. Raises ValueError if there are not as many strings."""
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != features or not all(isinstance(name, str) for name in given):
        raise ValueError(f"expected {features} names of columns, or none; got {given!r:.100}")
    return tuple(given)


def read_parameters(sizes: list[int], tensors: dict[str, np.ndarray]) -> tuple[list[int], np.ndarray]:
    """The layer sizes and all parameters (P,). Raises ValueError or KeyError if they do not fit each other."""
    if len(sizes) < 2 or not all(isinstance(units, int) and units > 0 for units in sizes):
        raise ValueError(f"expected two or more sizes of layers, got {sizes}")
    shapes: dict[str, tuple[int, ...]] = {}
    for l, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        shapes |= {f"W{l}": (fan_in, fan_out), f"b{l}": (fan_out,)}
    dtype = tensors["W0"].dtype
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"expected float32 or float64, got {dtype}")
    check_tensors(tensors, shapes, dtype)
    parameters = np.empty(parameter_count(sizes), dtype)  # (P,)
    W, b = layer_views(parameters, sizes)
    for l in range(len(W)):
        W[l][:], b[l][:] = tensors[f"W{l}"], tensors[f"b{l}"]
    return sizes, parameters


def check_tensors(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], dtype: np.dtype) -> None:
    """Raises ValueError or KeyError unless each tensor named is there with its shape and `dtype`."""
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ValueError(f"expected {name} as {dtype} {shape}, got {tensor.dtype} {tensor.shape}")


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the tensors of a model file. Raises FileNotFoundError or ModelFileError."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FileNotFoundError(f"{path}: no such model file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = tuple(file.keys()) if KEY in metadata else ()  # another's tensors may be large
            types = {file.get_slice(name).get_dtype() for name in names}
            if unknown := types - TYPES:  # others are there only where another package taught NumPy
                raise ValueError(f"NumPy has no {', '.join(sorted(unknown))}")
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(
            f"{path}: expected a model file of fastmlp (safetensors); it cannot be read: {error}"
        ) from error
    if KEY not in metadata:
        raise ModelFileError(f"{path}: expected a model file of fastmlp; a safetensors file of another kind")
    try:
        header = json.loads(metadata[KEY])
        version = header["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path}: expected a model file of fastmlp; its header is damaged ({error!r})") from error
    if version not in (1, VERSION) or type(version) is not int:
        raise ModelFileError(
            f"{path}: expected version 1 or {VERSION} of the model file; got {version!r}; update fastmlp"
        )
    return header, tensors

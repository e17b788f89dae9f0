"""``fastmlp predict`` and ``evaluate``: a saved model at work on data."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

import fastmlp
from fastmlp.cli.datasets import load_data, measured_part
from fastmlp.cli.options import (
    DEFAULTS,
    OUTPUT,
    BackendName,
    Data,
    Json,
    Labels,
    ModelFile,
    Strict,
    Target,
    Threads,
    check_outputs,
    option,
)
from fastmlp.data import Dataset
from fastmlp.files import write_beside_and_rename
from fastmlp.labels import encode_labels
from fastmlp.progress import class_table, fact

CLASSES_SHOWN = 20  # `evaluate` prints a line a class up to here


def predict(
    model: ModelFile,
    data: Data,
    target: Target = None,
    backend: BackendName = DEFAULTS["backend"],
    threads: Threads = None,
    strict: Strict = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Add a column for each class",
                                                rich_help_panel=OUTPUT)] = False,
    output: Annotated[Path | None, option(OUTPUT, "FILE.csv", "Write here, not to standard output")] = None,
) -> None:  # fmt: skip
    """Predict the class of each row, as CSV: of the test part where the data have one, else of all rows."""
    check_outputs({"--output": output}, (model, data))
    network = fastmlp.load(model, backend=backend, threads=threads, strict=strict)
    dataset = load_data(data, target=target, labelled=False)
    _, X, _ = measured_part(dataset)
    X = as_in_training(network, dataset, X, target)
    columns = [network.predict(X), *(network.predict_proba(X).T if probabilities else ())]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["prediction", *(f"probability {label}" for label in network.classes if probabilities)])
    writer.writerows(zip(*columns, strict=True))
    if output is None:
        sys.stdout.write(text.getvalue())
    else:
        write_beside_and_rename(output, text.getvalue().encode())
        fact("wrote", f"{output}, {len(X):,} rows")


def evaluate(
    model: ModelFile,
    data: Data,
    target: Target = None,
    labels: Labels = None,
    backend: BackendName = DEFAULTS["backend"],
    threads: Threads = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Measure loss and accuracy: on the test part where the data have one, else on all rows."""
    network = fastmlp.load(model, backend=backend, threads=threads, strict=strict)
    dataset = load_data(data, target=target, labels=labels)
    part, X, y = measured_part(dataset)
    X = as_in_training(network, dataset, X, target)
    loss, accuracy = network.evaluate(X, y)
    known = network.classes
    right, given = (encode_labels(codes, len(X), known)[0] for codes in (y, network.predict(X)))
    confusion = np.bincount(right * len(known) + given, minlength=len(known) ** 2).reshape(len(known), -1)
    if as_json:
        print(json.dumps({
            "data": dataset.name, "part": part, "rows": len(X), "loss": loss, "accuracy": accuracy,
            "backend": network.backend.name, "classes": known.tolist(), "confusion": confusion.tolist(),
        }))  # fmt: skip
        return
    fact("data", f"{dataset.name}, {len(X):,} rows ({part})")
    fact("loss", f"{loss:.4f}")
    fact("accuracy", f"{accuracy:.4f}")
    if len(known) <= CLASSES_SHOWN:
        Console().print(class_table(known, confusion))


def as_in_training(network: fastmlp.Model, dataset: Dataset, X: np.ndarray, target: str | None) -> np.ndarray:
    """Rows X (N, I) of a CSV as numbers where the network takes such: a few may well all be whole, as pixels are.

    Raises DataError if the columns have other names than in training, or another order.
    """
    network.inputs.check_columns(dataset.columns, f"{dataset.name}, with --target {target or 'label'}")
    whole = X.dtype == np.uint8 and dataset.columns is not None  # a CSV alone names its columns
    return X.astype(np.float32) if whole and not network.inputs.pixels else X

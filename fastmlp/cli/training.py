"""``fastmlp train``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import fastmlp
from fastmlp.cli.datasets import HELD_OUT, check_test, load_data, parse_scale, validation_part
from fastmlp.cli.messages import INTERRUPTED
from fastmlp.cli.options import (
    DEFAULTS,
    L2,
    NETWORK,
    OUTPUT,
    SOURCES,
    Activation,
    BackendName,
    Clip,
    Dropout,
    Labels,
    ScheduleName,
    Smoothing,
    Strict,
    Target,
    Threads,
    Warmup,
    WeightDecay,
    check_outputs,
    option,
    parse_activation,
    parse_batch_size,
    parse_hidden,
)
from fastmlp.files import write_beside_and_rename
from fastmlp.model import Model
from fastmlp.optimizers import OPTIMIZERS
from fastmlp.options import PRECISIONS
from fastmlp.plots import check_plot_path
from fastmlp.progress import fact, say


def train(
    ctx: typer.Context,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help=SOURCES, show_default="built-in digits")] = None,
    target: Target = None,
    labels: Labels = None,
    validation: Annotated[float | None, option("Data", "FRACTION", "Share of rows to hold out; 0 for none",
                                               f"the data's own part, else {HELD_OUT}")] = None,
    scale: Annotated[str | None, option("Data", "NAME", "standard (each column) or none",
                                        "none for pixels, else standard")] = None,
    hidden: Annotated[str, option(NETWORK, "UNITS", "Units of the hidden layers, as 512,512; '' for none")] = (
        ",".join(map(str, DEFAULTS["hidden"]))),
    epochs: Annotated[int | None, option(NETWORK, "N", "Passes over the training rows",
                                         "10, more on small data")] = None,
    batch_size: Annotated[str | None, option(NETWORK, "N", "Rows a step, or full", "128, fewer on small data")] = None,
    optimizer: Annotated[str, option(NETWORK, "NAME", ", ".join(OPTIMIZERS))] = DEFAULTS["optimizer"],
    learning_rate: Annotated[float | None, option(NETWORK, "RATE", "Step size", "the optimizer's own")] = None,
    beta: Annotated[float, option(NETWORK, "BETA", "Decay of the averaged gradient")] = DEFAULTS["beta"],
    precision: Annotated[str, option(NETWORK, "NAME", " or ".join(PRECISIONS))] = DEFAULTS["precision"],
    seed: Annotated[int, option(NETWORK, "N", "Of start weights, shuffles and split")] = DEFAULTS["seed"],
    activation: Activation = DEFAULTS["activation"],
    dropout: Dropout = DEFAULTS["dropout"],
    l2: L2 = DEFAULTS["l2"],
    weight_decay: WeightDecay = None,
    clip: Clip = None,
    schedule: ScheduleName = DEFAULTS["schedule"],
    warmup: Warmup = DEFAULTS["warmup"],
    label_smoothing: Smoothing = DEFAULTS["label_smoothing"],
    backend: BackendName = DEFAULTS["backend"],
    threads: Threads = None,
    strict: Strict = False,
    save: Annotated[Path | None, option(OUTPUT, "FILE", "Write the model, for predict and evaluate")] = None,
    report: Annotated[Path | None, option(OUTPUT, "FILE.json", "Write what ran, the history, the test result")] = None,
    plot: Annotated[Path | None, option(OUTPUT, "FILE", "Draw loss and accuracy: .png, .svg or .pdf")] = None,
) -> None:  # fmt: skip
    """Train a network. Without any option it trains well on the built-in digits."""
    outputs = {"--save": save, "--report": report, "--plot": plot}
    check_outputs(outputs, (data, labels))
    if plot is not None:
        check_plot_path(plot)
    units, rows_a_step = parse_hidden(hidden), parse_batch_size(batch_size)
    dataset = load_data(data, target=target, labels=labels)
    standardise, held_out = parse_scale(scale, dataset), validation_part(validation, dataset)
    check_test(dataset, standardise)
    model = fastmlp.train(
        dataset.X, dataset.y, validation=held_out, hidden=units, backend=backend, epochs=epochs, batch_size=rows_a_step,
        optimizer=optimizer, learning_rate=learning_rate, beta=beta, precision=precision, scale=standardise, seed=seed,
        threads=threads, strict=strict, progress=True, activation=parse_activation(activation), dropout=dropout, l2=l2,
        weight_decay=weight_decay, clip=clip, schedule=schedule, warmup=warmup, label_smoothing=label_smoothing,
    )  # fmt: skip
    model.inputs = model.inputs._replace(columns=dataset.columns)  # an array of rows has no names to hand over
    if not len(model.history):  # Ctrl-C in the first epoch: what stands at the outputs is worth more
        say("warning", "yellow", "no epoch was finished; nothing was written")
        raise typer.Exit(INTERRUPTED)
    if save is not None:
        model.save(save)
    test = {} if dataset.test is None else dict(
        zip(("test_loss", "test_accuracy"), model.evaluate(*dataset.test), strict=True))  # fmt: skip
    if report is not None:
        facts = {"command": ctx.meta["command"], "data": dataset.name} | model.report.to_dict() | test
        facts["network"] = asdict(model.network)
        write_beside_and_rename(report, json.dumps(facts | {"history": asdict(model.history)}, indent=1).encode())
    if plot is not None:
        model.history.plot(plot)
    summarise(model, dataset.name, test)
    for path in filter(None, outputs.values()):
        fact("wrote", path)
    if model.report.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)


def summarise(model: Model, name: str, test: dict[str, float]) -> None:
    """The end of a training in a few lines."""
    report, last, seconds = model.report, model.history.last(), sum(model.history.seconds)
    fact("network", f"{'-'.join(map(str, model.sizes))}, trained on {report.rows:,} rows of {name}")
    fact("training", f"{report.epochs} epoch{'s' * (report.epochs != 1)} in {seconds:.2f} s; {report.stopped}")
    where = report.device or report.blas
    threads = f", {report.threads} thread{'s' * (report.threads != 1)}" if report.threads else ""
    fact("backend", f"{report.backend}{threads}, {where}: {report.reason}")
    if "validation_accuracy" in last:
        fact("validation", f"accuracy {last['validation_accuracy']:.4f}, loss {last['validation_loss']:.4f}")
    if test:
        fact("test", f"accuracy {test['test_accuracy']:.4f}, loss {test['test_loss']:.4f}")

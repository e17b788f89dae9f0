"""The command line: ``fastmlp train``, ``predict``, ``evaluate``, ``info`` and ``bench``."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

import fastmlp
from fastmlp import backends
from fastmlp.cli_options import (
    DEFAULTS,
    HELD_OUT,
    L2,
    NETWORK,
    OUTPUT,
    SOURCES,
    Activation,
    BackendName,
    Clip,
    Data,
    Dropout,
    Json,
    Labels,
    ModelFile,
    ScheduleName,
    Smoothing,
    Strict,
    Target,
    Threads,
    Warmup,
    WeightDecay,
    check_outputs,
    check_test,
    measured_part,
    option,
    parse_activation,
    parse_batch_size,
    parse_hidden,
    parse_scale,
    validation_part,
)
from fastmlp.data import Dataset, read
from fastmlp.errors import BackendUnavailable, DataError, ModelFileError, OptionError, TrainingDiverged
from fastmlp.files import write_beside_and_rename
from fastmlp.labels import encode_labels
from fastmlp.model import Model
from fastmlp.optimizers import OPTIMIZERS
from fastmlp.options import PRECISIONS
from fastmlp.plots import check_plot_path
from fastmlp.progress import class_table, clean, fact, say, working
from fastmlp.report import versions

REFUSALS = (DataError, OptionError, ModelFileError, BackendUnavailable, TrainingDiverged, OSError, MemoryError)
WRONG, REFUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141  # exit codes
CLASSES_SHOWN = 20  # `evaluate` prints a line a class up to here


class Commands(TyperGroup):
    """The group of all commands: remembers the command line, and turns refusals into one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments for the report."""
        ctx.meta["command"] = shlex.join(["fastmlp", *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with plain_messages():
            return super().invoke(ctx)


@contextmanager
def plain_messages() -> Iterator[None]:
    """Bad input, and warnings, as one line on standard error; a closed pipe and Ctrl-C end quietly."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module="fastmlp")
        warnings.showwarning = lambda message, *_: say("warning", "yellow", message)
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            with suppress(OSError, ValueError):  # what is left to flush at exit goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except typer.BadParameter as error:
            where = error.ctx.command_path if error.ctx else "fastmlp"
            say("error", "red", f"{error.format_message().rstrip('.')}; see {where} --help")
            raise typer.Exit(REFUSED) from None
        except REFUSALS as error:
            say("error", "red", error)
            raise typer.Exit(REFUSED) from None


def load_data(source: str | None, **options: Any) -> Dataset:
    """`fastmlp.data.read`, with a spinner on a terminal."""
    with working(f"reading {'the built-in digits' if source is None else clean(source)}"):
        return read(source, **options)


app = typer.Typer(
    cls=Commands, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.callback(invoke_without_command=True)
def overview(
    ctx: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit")] = False,
) -> None:
    """Dense networks, trained at the speed of the hardware at hand."""
    if show_version:
        print(f"fastmlp {version('fastmlp')}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), end="")


@app.command()
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


@app.command()
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
    _, X, _ = measured_part(load_data(data, target=target, labelled=False))
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


@app.command()
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


@app.command()
def info(as_json: Json = False) -> None:
    """Show what was found here: backends, BLAS, threads, versions, and what would run."""
    from fastmlp.backends.numpy import narrow_kernels

    found, (chosen, reason) = backends.available(), backends.select()
    described = chosen.describe()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "runs": chosen.name, "reason": reason, "device": described.get("device"), "blas": described["blas"],
        "threads": described["threads"], "cpus": cpus, "platform": platform.platform(),
        "versions": versions(described["versions"]), "hint": narrow_kernels(),
    }  # fmt: skip
    if as_json:
        print(json.dumps({"backends": [row._asdict() for row in found], **facts}, indent=1))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("backend", "usable", "computes with, or why not"):
        table.add_column(name, overflow="fold")
    for row in found:
        usable = Text("yes", "green") if row.usable else Text("no", "red")
        table.add_row(Text(row.name, "bold" if row.name == chosen.name else ""), usable, Text(clean(row.reason)))
    Console().print(table, "")
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{library} {number}" for library, number in value.items())
        if value is not None:
            fact(name, value)


@app.command()
def bench(
    rows: Annotated[int | None, option("Work", "N", "Rows of the built-in digits to use", "all, 42,000")] = None,
    rounds: Annotated[int, option("Work", "N", "Times each is measured; the median counts")] = 5,
    as_json: Json = False,
) -> None:
    """Time the usable backends side by side on this machine, and check that they agree.

    A network of 784-160-10: an epoch on the full batch, an epoch in batches of 128, a prediction of all rows.
    """
    from fastmlp import bench as work

    if rounds < 1:
        raise OptionError(f"--rounds: expected a whole number from 1; got {rounds}")
    data = load_data(None)
    rows = len(data.X) if rows is None else rows
    if data.y is None or not work.BATCH <= rows <= len(data.X):
        raise OptionError(f"--rows: expected a whole number from {work.BATCH} to {len(data.X)}; got {rows}")
    found = backends.available()
    with working("measuring"):
        timings = work.measure(data.X[:rows], data.y[:rows], [row.name for row in found if row.usable], rounds)
    wrong = work.disagreements(timings)
    if as_json:
        print(
            json.dumps({"rows": rows, "agree": not wrong, "timings": [asdict(timing) for timing in timings]}, indent=1)
        )
    else:
        Console().print(work.table(timings))
        for row in found:
            if not row.usable:
                fact(row.name, f"not measured: {row.reason}")
    for line in wrong:
        say("error", "red", line)
    if wrong:
        raise typer.Exit(WRONG)


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="fastmlp")

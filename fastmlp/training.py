"""Training: a network set up from its options and data, and its epochs run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastmlp.backends import parameter_type, select
from fastmlp.backends.base import Backend, Rows
from fastmlp.errors import TrainingDiverged
from fastmlp.history import History
from fastmlp.loop import INTERRUPTED, Epoch, Work, run_epochs
from fastmlp.model import Model
from fastmlp.network import initialise
from fastmlp.options import Callback, Options
from fastmlp.preparation import Source
from fastmlp.progress import live_table
from fastmlp.report import Report, versions
from fastmlp.schedules import Schedule


def train(
    X: Any = None,
    y: Any = None,
    *,
    validation: float | tuple[Any, Any] | None = None,
    hidden: int | Sequence[int] = (160,),
    backend: str = "auto",
    epochs: int | None = None,
    batch_size: int | str | None = None,
    optimizer: str = "momentum",
    learning_rate: float | None = None,
    beta: float = 0.9,
    precision: str = "float32",
    scale: str | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: int = 0,
    strict: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    activation: str | Sequence[str] = "relu",
    dropout: float = 0.0,
    l2: float = 0.0,
    weight_decay: float | None = None,
    clip: float | None = None,
    schedule: str = "constant",
    warmup: float = 0.0,
    label_smoothing: float = 0.0,
) -> Model:
    """Train a dense network with softmax and cross entropy.

    Parameters
    ----------
    X
        (N, I) rows: uint8 pixels, which stay uint8 and mean pixels / 255, or numbers. The cupy backend takes rows that
        lie on its GPU already, in CuPy's arrays or any with DLPack, in place. Of a DataFrame the model keeps the
        columns' names, where all are strings, and refuses DataFrames with others, or in another order. None trains on
        the built-in digits, 42,000 rows with 12,000 for validation.
    y
        (N,) class labels, integers or text, or (N, O) one-hot rows.
    validation
        A pair (X, y), or the fraction of the rows to hold out, drawn with `seed` so that classes keep their shares.
    hidden
        Units of each hidden layer; () is softmax regression.
    backend
        "auto", "numpy", "numba" or "cupy". One that cannot run here is replaced by a CPU backend, with a warning.
    epochs
        Passes over the training rows. None takes 10, and more, up to 50, below 10,000 rows.
    batch_size
        Rows a step, or "full": one step an epoch on all rows, in their order, as in the notes. None takes 128, and
        fewer, down to 16, below 12,800 rows.
    optimizer
        "sgd", "momentum" (the notes'), "nesterov", "adam", "adamw", or momentum in scikit-learn's form, "heavy_ball"
        and "heavy_ball_nesterov".
    learning_rate
        None takes the optimizer's own: 0.001 for adam and adamw, 0.05 for those of heavy_ball, and 0.5 for the others.
    beta
        Decay of the averaged gradient, in [0, 1).
    precision
        "float32", "float64", or the operands of products rounded to fewer bits, with sums, parameters and updates in
        float32: "bfloat16" on a CPU with AVX-512 BF16 (numba); "tf32", "float16" or "bfloat16" on a GPU (cupy).
    scale
        "standard" standardises each column of floating-point rows; the model keeps the scaling and takes raw rows.
    seed
        Of the start weights, the shuffles and the split. The same seed, backend and threads give the same bits.
    threads
        CPU threads at most; None leaves the library's own choice.
    device
        Number of the GPU that the cupy backend computes on; other backends have none.
    strict
        Raise where `backend` cannot run here, instead of falling back.
    progress
        Show a live table; None does so on a terminal only.
    callbacks
        Called with the model after each epoch; one that returns True ends training.
    activation
        Of the hidden layers, one name for all or one each: "identity", "relu", "logistic", "tanh", "leaky_relu",
        "elu", "gelu" or "silu".
    dropout
        Share of the hidden units to leave out in each step, in [0, 1).
    l2
        Strength of the penalty l2 / 2 times the sum of all squared weights, not biases. The history's losses are
        without it.
    weight_decay
        Of adamw: each step takes learning rate times weight_decay off the weights. None takes 0.01.
    clip
        The longest gradient of a step, over all parameters, that is let through; a longer one is shortened. None
        lets all.
    schedule
        Of the learning rate: "constant"; "linear" or "cosine", to 0 at the end; or "one_cycle", up to the rate over
        the first 30 % of the steps, then down to nearly 0.
    warmup
        Epochs over which the learning rate rises from 0, in equal steps.
    label_smoothing
        Share of each row's target that is spread evenly over all classes, in [0, 1). The losses of history and
        `Model.evaluate` are of these targets.

    Returns
    -------
    Model

    Raises
    ------
    OptionError
        An option has an impossible value.
    DataError
        X, y or validation cannot be used. Nothing has been trained then.
    BackendUnavailable
        `strict` is set and the backend cannot run here.
    TrainingDiverged
        The loss became NaN or infinite.

    Warns
    -----
    BackendFallbackWarning
        Another backend runs than the one asked for.

    Notes
    -----
    Ctrl-C ends training with a warning and returns the model so far.

    Examples
    --------
    >>> model = train(epochs=1, progress=False)
    >>> model.sizes
    (784, 160, 10)
    """
    options = Options(
        validation, hidden, backend, epochs, batch_size, optimizer, learning_rate, beta, precision, scale, seed,
        threads, strict, callbacks, device, activation, dropout, l2, weight_decay, clip, schedule, warmup,
        label_smoothing,
    )  # fmt: skip
    source = Source(X, y)
    compute, reason = select(backend, strict=strict, device=device)
    training = set_up(source, options, compute, reason)
    with compute.limit_threads(threads), live_table(training.epochs, progress) as show:
        run(training, (lambda model: show(model.history), *callbacks))
    report = training.model.report
    if report.stopped == INTERRUPTED:
        warnings.warn(f"interrupted in epoch {report.epochs + 1}: the model so far is kept", stacklevel=2)
    return training.model


class Training(NamedTuple):
    """A model that is about to be trained, and on what."""

    model: Model
    rows: Rows
    held_out: Rows | None
    epochs: int
    batch_size: int
    shuffle: np.random.Generator | None  # of the rows' order; None leaves them as they stand


def set_up(source: Source, options: Options, compute: Backend, reason: str) -> Training:
    """A new model, and the rows to train it on. Raises DataError or OptionError."""
    dtype = parameter_type(compute, options.precision)
    rows, held_out = source.rows(options, compute, dtype)
    n = len(rows)
    epochs = min(50, max(10, 100_000 // n)) if options.epochs is None else options.epochs
    batch_size = min(128, max(16, n // 100)) if options.batch_size is None else options.batch_size
    batch = n if isinstance(batch_size, str) else min(int(batch_size), n)
    with compute.limit_threads(options.threads):
        facts = compute.describe(options.threads)
    report = Report(
        backend=compute.name, requested=options.backend, reason=reason, threads=facts["threads"],
        precision=options.precision, seed=int(options.seed), optimizer=options.optimizer,
        learning_rate=float(options.rate), beta=float(options.beta), batch_size=batch, rows=n,
        validation_rows=0 if held_out is None else len(held_out), epochs=0, stopped="not yet", blas=facts["blas"],
        device=facts.get("device"), versions=versions(facts["versions"]), l2=float(options.l2),
        weight_decay=options.decay, clip=float(options.clip or 0.0), schedule=options.schedule,
        warmup=float(options.warmup),
    )  # fmt: skip
    rng = np.random.default_rng(options.seed)
    network = options.network(source.X.shape[1], len(source.classes))
    start, inputs = initialise(network.sizes, rng, dtype), source.inputs(options)
    model = Model(compute, network, start, source.classes, inputs, History(), report, options.threads)
    return Training(model, rows, held_out, epochs, batch, None if batch_size == "full" else rng)


def run(training: Training, callbacks: Sequence[Callback]) -> None:
    """Train the model.

    Ctrl-C and a callback that returns True end it early; the model then holds what was learned so far.
    """
    model, rows, held_out, epochs, batch_size, shuffle = training
    report = model.report
    steps = -(-len(rows) // batch_size)
    schedule = Schedule(report.schedule, report.learning_rate, epochs, warmup_epochs=report.warmup)
    l2 = np.full(steps, report.l2) if report.l2 else None  # (steps,)

    def next_work() -> Work:
        rates = schedule.rates(steps)  # (steps,)
        schedule.epoch_ends(0)
        if shuffle is None:
            return Work(rows, rates, l2)
        order = shuffle.permutation(len(rows))  # (N,)
        return Work(replace(rows, index=order if rows.index is None else rows.index[order]), rates, l2)

    def record(epoch: Epoch) -> None:
        model.download()
        loss = epoch.train.loss + (epoch.validation[0] if epoch.validation else 0.0)
        if not np.isfinite(model.parameters).all():  # that loss was taken before the last step
            loss = math.nan
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss is {loss} after epoch {epoch.number}: lower learning_rate "
                f"({report.learning_rate:g}), or bring the columns to a common scale with scale='standard'"
            )
        model.history.append(epoch.train[:2], epoch.validation, epoch.seconds)
        report.epochs += 1
        report.launches = getattr(model.learner, "launches", None)

    report.stopped = run_epochs(
        model.learner, batch_size, epochs, next_work,
        lambda: None if held_out is None else model.plan.evaluate(held_out),
        [record, *(lambda _, callback=callback: callback(model) for callback in callbacks)],
    )  # fmt: skip
    if report.stopped == INTERRUPTED:
        model.download()

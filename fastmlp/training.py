"""Training: options checked, data prepared, epochs run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fastmlp.backends import parameter_type, select
from fastmlp.backends.base import Rows
from fastmlp.errors import DataError, OptionError, TrainingDiverged
from fastmlp.history import History
from fastmlp.inputs import Inputs, as_table, learn_inputs
from fastmlp.labels import encode_labels
from fastmlp.loop import INTERRUPTED, Epoch, Work, run_epochs
from fastmlp.model import Model
from fastmlp.network import Network, initialise
from fastmlp.optimizers import find
from fastmlp.progress import live_table
from fastmlp.report import Report, versions

PRECISIONS = ("float32", "float64", "tf32", "float16", "bfloat16")
WIDEST = 2**40  # units of a layer; fewer may still be too many for the memory
Callback = Callable[[Model], object]


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
) -> Model:
    """Train a dense network with ReLU layers, softmax and cross entropy.

    Parameters
    ----------
    X
        (N, I) rows: uint8 pixels, which stay uint8 and mean pixels / 255, or numbers. The cupy backend takes rows that
        lie on its GPU already, in CuPy's arrays or any with DLPack, in place. None trains on the built-in
        digits, 42,000 rows with 12,000 for validation.
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
    rule = find(optimizer)
    rate = rule.learning_rate if learning_rate is None else learning_rate
    widths = tuple(hidden) if isinstance(hidden, Sequence | np.ndarray) and not isinstance(hidden, str) else (hidden,)
    check_options(widths, epochs, batch_size, rate, beta, precision, scale, seed, callbacks, threads, device)
    if X is None:
        if y is not None:
            raise DataError("y: expected no labels without X; pass both, or neither for the built-in digits")
        from fastmlp.data import digits

        data = digits()
        X, y, validation = data.X, data.y, data.validation if validation is None else validation
    compute, reason = select(backend, strict=strict, device=device)
    dtype = parameter_type(compute, precision)
    prepared = prepare(X, y, validation, dtype, scale, seed)

    rows = Rows(compute.asarray(prepared.X), compute.asarray(prepared.y), prepared.train)
    held_out = None
    if prepared.held_out is not None:
        held_out = replace(rows, index=prepared.held_out)
    elif prepared.validation is not None:
        held_out = Rows(*map(compute.asarray, prepared.validation))
    n = len(rows)
    epochs = min(50, max(10, 100_000 // n)) if epochs is None else epochs
    batch_size = min(128, max(16, n // 100)) if batch_size is None else batch_size
    batch = n if isinstance(batch_size, str) else min(int(batch_size), n)

    with compute.limit_threads(threads):
        facts = compute.describe(threads)
        report = Report(
            backend=compute.name, requested=backend, reason=reason, threads=facts["threads"], precision=precision,
            seed=int(seed), optimizer=optimizer, learning_rate=float(rate), beta=float(beta), batch_size=batch,
            rows=n, validation_rows=0 if held_out is None else len(held_out), epochs=0, stopped="not yet",
            blas=facts["blas"], device=facts.get("device"), versions=versions(facts["versions"]),
        )  # fmt: skip
        rng = np.random.default_rng(seed)
        sizes = (prepared.X.shape[1], *map(int, widths), len(prepared.classes))
        start = initialise(sizes, rng, dtype)
        model = Model(compute, Network(sizes), start, prepared.classes, prepared.inputs, History(), report, threads)
        with live_table(epochs, progress) as show:
            run(
                model,
                rows,
                held_out,
                epochs,
                batch,
                None if batch_size == "full" else rng,
                (lambda model: show(model.history), *callbacks),
            )
    return model


def run(
    model: Model, rows: Rows, held_out: Rows | None, epochs: int, batch_size: int, shuffle: np.random.Generator | None,
    callbacks: Sequence[Callback],
) -> None:  # fmt: skip
    """Train `model` for `epochs` on `rows`, drawing their order from `shuffle` where given.

    Ctrl-C and a callback that returns True end it early; the model then holds what was learned so far.
    """
    report = model.report
    rates = np.full(-(-len(rows) // batch_size), report.learning_rate)  # (steps,)

    def next_work() -> Work:
        if shuffle is None:
            return Work(rows, rates)
        order = shuffle.permutation(len(rows))  # (N,)
        return Work(replace(rows, index=order if rows.index is None else rows.index[order]), rates)

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
        warnings.warn(f"interrupted in epoch {report.epochs + 1}: the model so far is kept", stacklevel=3)


class Prepared(NamedTuple):
    """Training data, checked and scaled, on the host."""

    X: np.ndarray  # (M, I)
    y: np.ndarray  # (M,) int32
    classes: np.ndarray  # (O,)
    inputs: Inputs
    train: np.ndarray | None  # (N,) rows of X to train on; None is all
    held_out: np.ndarray | None  # rows of X to validate on
    validation: tuple[np.ndarray, np.ndarray] | None  # other rows to validate on


def prepare(X: Any, y: Any, validation: Any, dtype: np.dtype, scale: str | None, seed: int) -> Prepared:
    """Check and scale all data of a training, before any of it is used. Raises DataError or OptionError."""
    X = as_table(X)
    codes, classes = encode_labels(y, len(X))
    train = held_out = None
    if isinstance(validation, int | float | np.number) and not isinstance(validation, bool):
        train, held_out = split(codes, float(validation), seed)
    inputs = learn_inputs(X, scale, train)
    prepared = inputs.prepare(X, dtype)
    if validation is None or held_out is not None:
        return Prepared(prepared, codes, classes, inputs, train, held_out, None)
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        shown = validation if isinstance(validation, bool | str) else type(validation).__name__
        raise OptionError(f"validation: expected a fraction between 0 and 1, or a pair (X, y); got {shown}")
    Xv = inputs.prepare(validation[0], dtype, "validation X")
    yv, _ = encode_labels(validation[1], len(Xv), classes, "validation y")
    return Prepared(prepared, codes, classes, inputs, None, None, (Xv, yv))


def split(codes: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to hold out, each class in its share. codes (N,) -> two sorted index arrays."""
    if not 0 < fraction < 1:
        raise OptionError(f"validation: expected a fraction between 0 and 1, or a pair (X, y); got {fraction}")
    from sklearn.model_selection import train_test_split

    try:
        train, held_out = train_test_split(np.arange(len(codes)), test_size=fraction, stratify=codes, random_state=seed)
    except ValueError as error:
        raise DataError(
            f"validation={fraction}: the rows cannot be split so that every class has its share: {error}"
        ) from error
    return np.sort(train), np.sort(held_out)


def check_options(
    hidden: tuple[int, ...], epochs: int | None, batch_size: int | str | None, rate: float, beta: float, precision: str,
    scale: str | None, seed: int, callbacks: Sequence[Callback], threads: int | None, device: int,
) -> None:  # fmt: skip
    """Raises OptionError for an impossible value, naming the option, what was expected and what came."""

    def whole(value: Any, least: int) -> bool:
        return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)

    def real(value: Any) -> bool:
        return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)

    for name, value, good, expected in (
        ("hidden", hidden, all(whole(units, 1) for units in hidden), "whole numbers from 1, one a hidden layer"),
        (
            "hidden",
            hidden,
            all(units < WIDEST for units in hidden if whole(units, 1)),
            f"layers of fewer than {WIDEST:,} units",
        ),
        ("epochs", epochs, epochs is None or whole(epochs, 1), "a whole number from 1"),
        (
            "batch_size",
            batch_size,
            batch_size is None or whole(batch_size, 1) or batch_size == "full",
            "a whole number from 1, or 'full'",
        ),
        ("learning_rate", rate, real(rate) and rate > 0, "a finite number above 0"),
        ("beta", beta, real(beta) and 0 <= beta < 1, "a number from 0 to below 1"),
        ("precision", precision, isinstance(precision, str) and precision in PRECISIONS, " or ".join(PRECISIONS)),
        ("scale", scale, scale is None or scale == "standard", "None or 'standard'"),
        ("seed", seed, whole(seed, 0) and seed < 2**32, "a whole number from 0 to below 2**32"),
        (
            "callbacks",
            callbacks,
            isinstance(callbacks, Sequence) and all(map(callable, callbacks)),
            "a sequence of functions",
        ),
        ("threads", threads, threads is None or whole(threads, 1), "a whole number from 1, or None"),
        ("device", device, whole(device, 0), "a whole number from 0"),
    ):
        if not good:
            raise OptionError(f"{name}: expected {expected}; got {value!r}")

"""Many networks on the same rows, trained side by side: one network a thread, and no thread waits for another."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from fastmlp.backends import select
from fastmlp.backends.base import HostBackend
from fastmlp.backends.new_thread import start
from fastmlp.backends.threads import ENDING, LISTEN, PLACES, check_ending, cores
from fastmlp.errors import BackendUnavailable, DataError, OptionError, TrainingDiverged
from fastmlp.loop import INTERRUPTED
from fastmlp.model import Model
from fastmlp.options import Options
from fastmlp.preparation import Source
from fastmlp.progress import LotShow, lot_bar
from fastmlp.training import Training, run, set_up
from fastmlp.values import check_threads

OWN = ("threads", "progress")  # options of the lot, not of a network


def train_many(
    X: Any, y: Any, configs: Sequence[Mapping[str, Any]], *, threads: int | None = None, progress: bool | None = None
) -> list[Model]:
    """Train several networks on the same rows, side by side.

    Each thread takes one network at a time, and computes it alone; the rows are checked once, and no network has a
    copy of its own. On a GPU the networks take turns.

    Parameters
    ----------
    X, y
        (N, I) rows and (N,) labels, as `fastmlp.train` takes them.
    configs
        For each network, the options of `fastmlp.train` that it is to have, by name, but for `threads` and `progress`.
        Callbacks are called in the thread that trains their network.
    threads
        Networks to train at once; None is as many as there are cores.
    progress
        Show a bar of all epochs; None does so on a terminal only.

    Returns
    -------
    list of Model
        In the order of `configs`. Each has the weights and the history, to the bit, that
        ``fastmlp.train(X, y, threads=1, **config)`` gives, and predicts on one thread.

    Raises
    ------
    OptionError, DataError, BackendUnavailable
        As `fastmlp.train`, with the place of the config at fault; nothing has been trained then. Also where several
        networks with ``scale="standard"`` hold out different rows, for each would need an X of its own.

    Warns
    -----
    RuntimeWarning
        The loss of a network became NaN or infinite: its training ended there, and its ``report.stopped`` says so. The
        others went on.

    Notes
    -----
    Ctrl-C ends all of them with a warning. Each model is then as far as it came; one that did not begin has its start
    weights. An error in a callback ends all of them, too, and is raised.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> models = train_many(X, y, [{"hidden": (units,), "epochs": 2} for units in (8, 16)], progress=False)
    >>> [model.sizes for model in models]
    [(4, 8, 3), (4, 16, 3)]
    """
    check_threads(threads)
    options = checked(configs)
    source = Source(X, y)
    check_scaling(source, options)
    trainings = []
    for place, option in enumerate(options):
        with blamed(place):
            compute, reason = select(option.backend, strict=option.strict, device=option.device)
            trainings.append(set_up(source, option, compute, reason))
    backends = {training.model.backend for training in trainings}
    at_once = (threads or cores()) if all(isinstance(backend, HostBackend) for backend in backends) else 1
    with ExitStack() as stack:
        for backend in backends:
            stack.enter_context(backend.limit_threads(1))
        show = stack.enter_context(lot_bar([training.epochs for training in trainings], progress))
        lot = Lot(trainings, options, show)
        interrupted = lot.run(min(at_once, len(trainings)))
    for place, error in sorted(lot.diverged.items()):
        warnings.warn(f"configs[{place}]: {error}", RuntimeWarning, stacklevel=2)
    if interrupted:
        done = sum(training.model.report.stopped not in ("not yet", INTERRUPTED) for training in trainings)
        for training in trainings:
            if training.model.report.stopped == "not yet":
                training.model.report.stopped = INTERRUPTED
        warnings.warn(
            f"interrupted when {done} of {len(trainings)} networks were done: the models so far are kept", stacklevel=2
        )
    return [training.model for training in trainings]


def checked(configs: Any) -> list[Options]:
    """The options of each network. Raises OptionError, naming the config at fault."""
    if isinstance(configs, Mapping | str) or not isinstance(configs, Sequence) or not configs:
        raise OptionError(f"configs: expected a list of dicts, one a network; got {configs!r:.60}")
    known = [field.name for field in fields(Options) if field.name not in OWN]
    options = []
    for place, config in enumerate(configs):
        if not isinstance(config, Mapping):
            raise OptionError(f"configs[{place}]: expected a dict of options of fastmlp.train; got {config!r:.60}")
        for name in config:
            if name in OWN:
                raise OptionError(f"configs[{place}]: {name} is for all networks; pass it to train_many itself")
            if name not in known:
                raise OptionError(f"configs[{place}]: expected options among {', '.join(known)}; got {name!r}")
        with blamed(place):
            options.append(Options(**config, threads=1))
    return options


def check_scaling(source: Source, options: Sequence[Options]) -> None:
    """Raises OptionError where networks would need standardised rows of their own."""
    scalings: dict[tuple[Any, ...], int] = {}
    for place, option in enumerate(options):
        if option.scale is not None:
            with blamed(place):
                scalings.setdefault(source.scaling(option), place)
    if len(scalings) > 1:
        first, other = list(scalings.values())[:2]
        raise OptionError(
            f"configs[{other}]: scale='standard' learns from the rows that are not held out, and these are others than "
            f"those of configs[{first}]: each would need a copy of X; pass validation=(Xv, yv), or scale X beforehand"
        )


@contextmanager
def blamed(place: int) -> Iterator[None]:
    """Name the config in what is refused."""
    try:
        yield
    except (OptionError, DataError, BackendUnavailable) as error:
        raise type(error)(f"configs[{place}]: {error}") from error


class Lot:
    """Trainings that are run by threads, each taking the next one when it is done with one."""

    def __init__(self, trainings: Sequence[Training], options: Sequence[Options], show: LotShow):
        self.trainings, self.options, self.show = trainings, options, show
        self.ending = np.zeros(PLACES, np.int64)  # see `fastmlp.backends.threads`
        self.diverged: dict[int, TrainingDiverged] = {}  # by place
        self.errors: list[BaseException] = []
        self.waiting: SimpleQueue[int] = SimpleQueue()
        for place in range(len(trainings)):
            self.waiting.put(place)

    def run(self, at_once: int) -> bool:
        """Run all; whether Ctrl-C ended it. Raises the first error of a callback or a kernel."""
        left = [threading.Event() for _ in range(at_once)]
        interrupted = False
        for thread, event in enumerate(left):
            try:
                start(partial(self.work, event), elsewhere=thread > 0)
            except RuntimeError as error:  # the system gives no more threads: those that run come to an end
                self.errors.append(error)
                self.ending[:] = 1
                event.set()
        for event in left:
            while not event.is_set():  # not Thread.join: interrupted once, it would not wait again
                try:
                    event.wait(LISTEN)
                except KeyboardInterrupt:
                    interrupted, self.ending[:] = True, 1
        if self.errors:
            raise self.errors[0]
        return interrupted

    def work(self, left: threading.Event) -> None:
        """What one thread does."""
        ENDING.set(self.ending)
        try:
            while not self.ending.any():
                self.train(self.waiting.get_nowait())
        except Empty:
            pass
        except BaseException as error:
            self.errors.append(error)
            self.ending[:] = 1
        finally:
            left.set()

    def train(self, place: int) -> None:
        """Train one network."""
        training = self.trainings[place]

        def seen(model: Model) -> None:
            check_ending()
            self.show(place, model.history)

        try:
            run(training, (seen, *self.options[place].callbacks))
        except TrainingDiverged as error:
            self.diverged[place], training.model.report.stopped = error, str(error)
        except BaseException as error:
            error.add_note(f"in configs[{place}]")
            raise

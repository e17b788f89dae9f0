"""The rows of the table: what is compared, and which candidates take part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

import fastmlp

from . import check, ours
from .contract import LIBRARIES, Trainer, load
from .jobs import ROWS, Data, Job, dense, images, images_name
from .rounds import Candidate

CALLS = 200  # predictions of one row in one reading of the clock
EPOCHS = 5  # of the whole trainings


class Row(NamedTuple):
    """One line of the table, made when its turn comes: data of other rows need not be in memory then."""

    key: str  # for --only and the record
    title: str
    make: Callable[[Collection[str]], tuple[float, list[Candidate]]]  # libraries -> flop of one run, candidates


def modules(libraries: Collection[str]) -> list:
    """The modules of the libraries asked for, in the order of LIBRARIES."""
    return [load(library) for library in LIBRARIES if library in libraries]


def epochs_of(job: Job, trainers: Sequence[Trainer], names: Sequence[str] | None = None) -> list[Candidate]:
    """One epoch from the start, for each trainer."""
    judge, order = check.epoch_check(job), job.order()

    def candidate(trainer: Trainer, name: str) -> Candidate:
        return Candidate(name, lambda: trainer.epoch(order), partial(judge, trainer), trainer.restart)

    return [
        candidate(trainer, name)
        for trainer, name in zip(trainers, names or [trainer.name for trainer in trainers], strict=True)
    ]


def epoch(make_job: Callable[[], Job], libraries: Collection[str]) -> tuple[float, list[Candidate]]:
    """One epoch in every library."""
    job = make_job()
    if not job.full:
        check_first_steps(job.head(check.FEW), libraries)
    return job.flop(), epochs_of(job, [each for module in modules(libraries) for each in module.trainers(job)])


def check_first_steps(job: Job, libraries: Collection[str]) -> None:
    """Raises WrongResult unless all libraries agree closely on a job of a few steps."""
    judge = check.epoch_check(job, few=True)
    for module in modules(libraries):
        for trainer in module.trainers(job):
            trainer.restart()
            judge(trainer, trainer.epoch(job.order()))


def second_thread(make_job: Callable[[], Job], libraries: Collection[str]) -> tuple[float, list[Candidate]]:
    """One epoch of the numba backend on one thread, and on all."""
    job = make_job()
    backend = ours.backends()[0]
    counts = sorted({1, job.threads}, reverse=True)
    names = [f"fastmlp {backend.name}", *(f"the same on {count} thread" for count in counts[1:])]
    return job.flop(), epochs_of(job, [ours.Ours(job, backend, count) for count in counts], names)


def predict(make_job: Callable[[], Job], libraries: Collection[str], one: bool) -> tuple[float, list[Candidate]]:
    """Probabilities of all rows, or the label of one."""
    job = make_job()
    if one:
        job = job._replace(raw=job.raw[:1], x=job.x[:1], y=job.y[:1])
    check_proba, check_labels = check.prediction_checks(job)
    asked = [each for module in modules(libraries) for each in module.predictors(job)]
    if one:
        return job.flop_forward(), [
            Candidate(each.name, each.labels, partial(check_labels, each), times=CALLS) for each in asked
        ]
    return job.flop_forward(), [Candidate(each.name, each.proba, partial(check_proba, each)) for each in asked]


def whole(make_job: Callable[[], Job], libraries: Collection[str]) -> tuple[float, list[Candidate]]:
    """A training of several epochs by one call, from raw rows, for the libraries that have such a call."""
    job = make_job()
    candidates = []

    def add(name: str, run: Callable[[], object], score: Callable[[object], float]) -> None:
        judge = check.accuracy_check(0.9 if len(job.y) >= ROWS else 0.0)  # fewer rows only try the harness
        candidates.append(Candidate(name, run, lambda model: judge(name, score(model))))

    for backend in ours.backends():
        add(
            f"fastmlp {backend.name}",
            lambda name=backend.name: fastmlp.train(
                job.raw, job.y, hidden=job.sizes[1:-1], backend=name, epochs=EPOCHS, batch_size=job.batch,
                learning_rate=job.rate, beta=job.beta, threads=job.threads, strict=True, progress=False,
            ),
            lambda model: model.score(job.raw, job.y),
        )  # fmt: skip
    if "sklearn" in libraries:
        from .with_sklearn import fit

        add("scikit-learn", lambda: fit(job, EPOCHS), lambda model: model.score(job.x, job.y))
    return EPOCHS * job.flop(), candidates


def rows(most: int | None, threads: int) -> list[Row]:
    """All rows of the table, with `most` rows of data at most."""

    def capped(count: int) -> int:
        return count if most is None else min(most, count)

    def job(data: Data, *hidden: int, classes: int = 10, batch: int = ROWS, rule="momentum", rate=0.2) -> Job:
        return Job(*data, (data.x.shape[1], *hidden, classes), batch, rule, rate, threads)

    def pixels(*hidden: int, **options) -> Callable[[], Job]:
        return lambda: job(images(capped(ROWS)), *(hidden or (160,)), **options)

    name = images_name()
    full, batch_128 = pixels(), pixels(batch=128)
    return [
        Row("full-dense", f"full batch, {ROWS:,} dense rows, 784-160-10",
            partial(epoch, lambda: job(dense(capped(ROWS), 784, 10), 160, rate=0.05))),
        Row("full", f"full batch, {name}, 784-160-10", partial(epoch, full)),
        Row("batch-128", f"batch 128, momentum, {name}, 784-160-10", partial(epoch, batch_128)),
        Row("batch-32", f"batch 32, momentum, {name}, 784-160-10", partial(epoch, pixels(batch=32, rate=0.1))),
        Row("adam-small", "batch 200, Adam, 16,000 dense rows, 16-100-26",
            partial(epoch, lambda: job(dense(capped(16_000), 16, 26), 100, classes=26, batch=200, rule="adam",
                                       rate=1e-3))),
        Row("adam-deep", f"batch 256, Adam, {name}, 784-512-512-10",
            partial(epoch, pixels(512, 512, batch=256, rule="adam", rate=1e-3))),
        Row("predict", f"predict_proba of {ROWS:,} rows, {name}", partial(predict, full, one=False)),
        Row("predict-one", "predict one row", partial(predict, full, one=True)),
        Row("train", f"{EPOCHS} epochs by one call, batch 128, {name}", partial(whole, batch_128)),
        Row("threads-full", f"second thread, full batch, {name}", partial(second_thread, full)),
        Row("threads-128", f"second thread, batch 128, {name}", partial(second_thread, batch_128)),
    ]  # fmt: skip

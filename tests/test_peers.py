"""The comparison with other libraries: every row runs on tiny data, for the libraries that are installed."""

import importlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastmlp.data import digits

ROOT = Path(__file__).parents[1]
ROWS = ("full-dense", "full", "batch-128", "batch-32", "adam-small", "adam-deep", "bfloat16", "predict", "predict-one",
        "train", "threads-full", "threads-128")  # fmt: skip
NAMES = {"jax": "JAX", "torch": "torch", "sklearn": "scikit-learn"}
ABSENT = {"train": {"jax", "torch"}, "bfloat16": {"sklearn"}} | dict.fromkeys(("threads-full", "threads-128"), NAMES)


@pytest.fixture(scope="module")
def mnist_folder(tmp_path_factory):
    """Built-in digits in files of MNIST's format and names."""
    folder = tmp_path_factory.mktemp("mnist")
    X, y = digits().X[:800], digits().y[:800]
    for name, rows in (("train", slice(0, 500)), ("t10k", slice(500, 800))):
        for kind, array in (("images-idx3", X[rows].reshape(-1, 28, 28)), ("labels-idx1", y[rows].astype(np.uint8))):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return folder


@pytest.fixture
def peers(monkeypatch, mnist_folder):
    """peers(name): a module of the harness, which is not installed."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("FASTMLP_MNIST", str(mnist_folder))
    return lambda name: importlib.import_module(f"benchmarks.peers.{name}")


def need(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install fastmlp[bench]")


@pytest.fixture
def run(mnist_folder):
    """run(module, *options): a program of benchmarks/, in a process of its own, which limits threads."""

    def run(module, *options):
        command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, options)]
        env = {**os.environ, "FASTMLP_MNIST": str(mnist_folder)}
        result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


@pytest.mark.parametrize("library", NAMES)
def test_a_record_holds_every_row_and_raw_number(library, run, tmp_path):
    need(library)
    run("peers", "--rows", 300, "--rounds", 2, "--threads", 1, "--only", library, "--record", "--folder", tmp_path)
    raw, text = (next(tmp_path.glob(f"*-peers.{kind}")) for kind in ("json", "md"))
    record = json.loads(raw.read_text())
    assert [row["key"] for row in record["table"]] == list(ROWS)
    for row in record["table"]:
        ours, *_ = row["seconds"]
        assert ours.startswith("fastmlp numba") or row["refused"]["numba"]
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in row["seconds"].values())
        theirs = any(name.startswith(NAMES[library]) for name in row["seconds"])
        assert theirs == (library not in ABSENT.get(row["key"], ()))
    assert record["peak flop/s"]["best"] > 0
    assert {"fastmlp", "numpy", "numba"} < set(record["versions"])
    assert record["not run"] == {}
    assert not any(row["failed"] for row in record["table"])
    assert "| **full batch" in text.read_text()
    assert not {"host", "node"} & set(record["machine"])


def test_a_missing_library_is_named_with_the_reason(peers, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.with_jax", raising=False)
    assert "jax" in peers("contract").load("benchmarks.peers.with_jax")


def test_an_unknown_name_is_refused_with_the_names_there_are(peers):
    with pytest.raises(Exception, match=r"predict-one.*sklearn.*got keras"):
        peers("__main__").choose(peers("table").rows(100, 1), ["keras"])


def tiny_job(peers, **changes):
    jobs = peers("jobs")
    return jobs.Job(jobs.Source("dense", 300, 16, 26), (20,), 64, "momentum", 0.2, 1)._replace(**changes)


def outcome(trainer, job):
    return trainer.epoch(job.order(), job.rates()), trainer.parameters()


@pytest.mark.parametrize("changes", [{"rate": 0.21}, {"beta": 0.89}, {"seed": 2}, {"optimizer": "adam"}])
def test_a_library_that_does_other_work_is_refused(peers, changes):
    check, ours = peers("check"), peers("ours")
    judge = check.epoch_check(tiny_job(peers))
    trainer = ours.trainers(tiny_job(peers), "numba")[0]
    trainer.restart()
    judge(trainer.name, outcome(trainer, tiny_job(peers)))
    other = ours.trainers(tiny_job(peers, **changes), "numba")[0]
    other.restart()
    with pytest.raises(check.WrongResult, match="the loss of the epoch is"):
        judge(other.name, outcome(other, tiny_job(peers, **changes)))


@pytest.mark.parametrize("library", ["numba", "numpy", "sklearn"])  # the others stay out of this process
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_restart_forgets_the_steps_taken_and_rates_are_obeyed(peers, library, optimizer):
    job = tiny_job(peers, optimizer=optimizer, rate=0.01)
    contract = peers("contract")
    (trainer,) = contract.load(contract.LIBRARIES[library]).trainers(job, library)
    trainer.restart()
    first = outcome(trainer, job)
    trainer.restart()
    again = outcome(trainer, job)
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])
    trainer.restart()
    assert not np.array_equal(outcome(trainer, job._replace(rate=0.02))[1], again[1])


def test_a_precision_that_is_not_there_is_refused_with_the_reason(peers):
    with pytest.raises(peers("contract").NotThere, match="float8"):
        peers("ours").trainers(tiny_job(peers, precision="float8"), "numba")


class Counter:
    """Something to call in another process."""

    def __init__(self, start):
        self.count = start

    def add(self, number):
        self.count += number
        return self.count, os.getpid()

    def fail(self):
        raise ValueError("no more")

    def end(self):
        os._exit(3)


def state(process):
    """Of a process, as Linux shows it: R runs, S sleeps, T is stopped."""
    return Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_keeps_its_object_and_is_stopped_between_calls(peers):
    process = peers("process").Process("counter", Counter, 5)
    try:
        assert process.call("add", 2)[0] == 7
        assert process.call("add", 2) == (9, process.process.pid)
        assert process.process.pid != os.getpid()
        assert state(process) == "T"
    finally:
        process.close()


def test_a_failure_in_a_process_is_told_with_its_reason(peers):
    process, failed = peers("process").Process("counter", Counter, 5), peers("process").ProcessFailed
    try:
        with pytest.raises(failed, match=r"counter: (.|\n)*ValueError: no more"):
            process.call("fail")
        assert process.call("add", 1)[0] == 6
        with pytest.raises(failed, match="counter: the process ended with exit code 3"):
            process.call("end")
        with pytest.raises(failed, match="counter: the process has ended with exit code 3"):
            process.call("add", 1)
    finally:
        process.close()
    with pytest.raises(failed, match=r"counter: (.|\n)*missing 1 required"):
        peers("process").Process("counter", Counter)


class Answers:
    """Stands for a process: answers at once, and keeps who was asked."""

    def __init__(self, reading):
        self.reading, self.asked = reading, []

    def call(self, method, name, times):
        self.asked.append(name)
        return self.reading(1.0, None, name)


def test_every_round_reads_each_candidate_once_in_an_order_that_rotates(peers):
    rounds, process = peers("rounds"), Answers(peers("work").Reading)
    candidates = [rounds.Candidate(name, process, lambda name, outcome: None) for name in "abc"]
    times = rounds.measure(candidates, 3, lambda: process.asked.append("-"))
    assert "".join(process.asked) == "abc-abc-bca-cab"
    assert times == ({name: [1.0] * 3 for name in "abc"}, {}, {})
    assert rounds.measure(candidates, 3, lambda: None, until=0).wall == {name: [1.0] for name in "abc"}


def test_a_candidate_that_goes_wrong_counts_for_nothing_and_the_others_go_on(peers):
    rounds, process = peers("rounds"), Answers(peers("work").Reading)

    def check(name, outcome):
        if name == "b" and process.asked.count("b") > 2:  # in the second round
            raise peers("check").WrongResult("b: another loss")

    candidates = [rounds.Candidate(name, process, check) for name in "abc"]
    times = rounds.measure(candidates, 3, lambda: None)
    assert times.wall == {name: [1.0] * 3 for name in "ac"}
    assert times.failed == {"b": "b: another loss"}
    assert process.asked.count("b") == 3


def test_libraries_that_differ_at_the_first_steps_are_not_opened_for_the_rest(peers, monkeypatch):
    table, work, asked = peers("table"), peers("work"), []
    job = tiny_job(peers)
    right = outcome(started(peers("ours").trainers(job.head(10), "numpy")[0]), job.head(10))

    class Fake:
        name = "fake"

        def call(self, method, *arguments):
            asked.append(method)
            if method == "open":
                return work.Opened(["good", "bad"])
            if method == "run":
                return work.Reading(1.0, None, (right[0] * (1.001 if arguments[0] == "bad" else 1), right[1]))
            return None

    opened = table.ready(table.Row("row", "a row", "epoch", (table.Entry(job, "", ("fake",)),)), {"fake": Fake()})
    assert [candidate.name for candidate in opened.candidates] == ["good"]
    assert "the loss of the epoch is" in opened.failed["bad"]
    assert asked == ["clear", "open", "run", "run", "clear", "open"]


def started(trainer):
    trainer.restart()
    return trainer


def test_time_to_accuracy_trains_by_the_recipe(run, tmp_path):
    libraries = [word for name in ("jax", "torch") if importlib.util.find_spec(name) for word in ("--only", name)]
    options = (
        "--seeds",
        2,
        "--rows",
        500,
        "--threads",
        1,
        "--record",
        "--folder",
        tmp_path,
        *(libraries or ("--only", "numba")),
    )
    run("time_to_accuracy", *options)
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    rates = record["mean rate of each epoch"]
    assert len(rates) == 8
    assert np.mean(rates) == pytest.approx(0.3, abs=0.01)
    assert rates == sorted(rates, reverse=True)
    outcomes = record["seconds and accuracy by seed"]
    accuracies = np.array([[accuracy for _, accuracy in found] for found in outcomes.values()])  # (libraries, seeds)
    assert accuracies.min() > 0.5
    assert np.ptp(accuracies, axis=0).max() < 0.05  # one recipe, whatever the library

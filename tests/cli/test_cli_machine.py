"""`fastmlp info` and `bench`: what computes on this machine, and how fast."""

import json
import sys

import numpy as np
import pytest
from command import numba_is_broken, refuse, run

from fastmlp import backends, bench
from fastmlp.backends.numpy import NumpyBackend
from fastmlp.cli import messages


def test_info_as_json():
    found = json.loads(run("info", "--json").stdout)
    assert [row["name"] for row in found["backends"]] == list(backends.CLASSES)
    assert found["runs"] == backends.select().backend.name
    assert found["cpus"] >= 1
    assert {"fastmlp", "python", "numpy"} <= set(found["versions"])
    assert {"reason", "blas", "threads", "platform"} <= set(found)


def test_info_says_why_a_backend_is_not_usable(monkeypatch):
    numba_is_broken(monkeypatch)
    shown = run("info").stdout
    assert "OSError: no room" in shown
    assert "numpy" in shown
    assert f"python {sys.version_info.major}.{sys.version_info.minor}" in shown


def only_numpy(monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: [backends.Availability("numpy", True, "some BLAS")])


def test_bench_as_json(monkeypatch, few_digits):
    only_numpy(monkeypatch)
    found = json.loads(run("bench", "--rows", 200, "--rounds", 3, "--json").stdout)
    assert (found["rows"], found["agree"]) == (200, True)
    assert [timing["work"] for timing in found["timings"]] == list(bench.WORK)
    forward = 2 * 200 * (784 * 160 + 160 * 10)
    backward = forward + 2 * 200 * 160 * 10
    for timing, flop in zip(found["timings"], (forward + backward, forward + backward, forward), strict=True):
        assert len(timing["seconds"]) == 3
        assert timing["ms"] == pytest.approx(1e3 * sorted(timing["seconds"])[1])
        assert timing["gflops"] == pytest.approx(flop / sorted(timing["seconds"])[1] / 1e9)


def test_bench_times_every_usable_backend(few_digits):
    shown = run("bench", "--rows", 128, "--rounds", 1).stdout
    for row in backends.available():
        assert shown.count(f" {row.name} ") == (len(bench.WORK) if row.usable else 0)
        assert (f"{row.name:<11} not measured: " in shown) is not row.usable


class SlightlyWrong(NumpyBackend):
    """A backend whose weight gradient is 2 % too small."""

    name = "numba"
    ops = NumpyBackend.ops._replace(
        weight_gradient=lambda a, dz, dW, db, add: NumpyBackend.ops.weight_gradient(a, 0.98 * dz, dW, db, add)
    )


@pytest.mark.parametrize("machine", [True, False])
def test_bench_fails_on_a_wrong_result(monkeypatch, few_digits, machine):
    found = {"numba": SlightlyWrong(), "numpy": NumpyBackend()}
    monkeypatch.setattr(backends, "load", lambda name: found.get(name, "absent"))
    # Adam hardly feels the size of a gradient; plain steps do
    train = bench.train
    monkeypatch.setattr(bench, "train", lambda *args, **options: train(*args, **options, optimizer="sgd"))
    result = run("bench", "--rows", 300, "--rounds", 1, *(["--json"] if machine else []), code=messages.WRONG)
    assert "numba and numpy disagree" in result.stderr
    assert not machine or json.loads(result.stdout)["agree"] is False


def test_a_loss_that_is_no_number_never_agrees():
    for first, second in ((np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0)):
        losses = {"a": first, "b": second}
        timings = [bench.Timing(name, work, 1, losses[name], [1.0], 1.0, 1.0) for work in bench.WORK for name in losses]
        assert len(bench.disagreements(timings)) >= len(bench.WORK)


@pytest.mark.parametrize(("option", "value"), [("--rows", 127), ("--rows", 301), ("--rounds", 0)])
def test_bench_refuses(few_digits, option, value):
    refuse("bench", option, value, say=[f"{option}: expected a whole number from", f"got {value}"])

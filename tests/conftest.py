"""What the tests share: backends to run on, small data, MNIST where a folder of it is named, and the GPU's gate."""

import gzip
import os
import signal
import struct
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from named import CPU_BACKENDS

from fastmlp import backends

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=30)
hypothesis.settings.load_profile("fixed")


def pytest_addoption(parser):
    parser.addoption("--require-gpu", action="store_true", help="fail the tests marked gpu where there is no GPU")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is None:
        return
    loaded = backends.load("cupy")
    if isinstance(loaded, str):
        if item.config.getoption("--require-gpu"):
            pytest.fail(f"--require-gpu: the cupy backend cannot be used: {loaded}", pytrace=False)
        pytest.skip(f"needs a GPU: {loaded}")


@pytest.fixture(scope="session", autouse=True)
def hears_control_c():
    """A process that a shell starts in the background is born deaf to SIGINT, which some tests send."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=CPU_BACKENDS)
def backend(request):
    """Each CPU backend that works here."""
    loaded = backends.load(request.param)
    if isinstance(loaded, str):
        pytest.skip(f"{request.param}: {loaded}")
    return loaded


@pytest.fixture(scope="session", params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def blobs():
    """X (90, 4) float64, y (90,) 0, 1, 2: three clouds that a small net tells apart."""
    rng = np.random.default_rng(7)
    y = np.arange(90) % 3
    centres = np.array([[2.0, 0, 0, 1], [0, 2, 0, -1], [0, 0, 2, 0]])  # (3, 4)
    return centres[y] + 0.5 * rng.standard_normal((90, 4)), y


@pytest.fixture
def pixels():
    """X (80, 9) uint8, y (80,) 0, 1: bright left columns against bright right columns."""
    rng = np.random.default_rng(8)
    y = np.arange(80) % 2
    X = rng.integers(0, 100, (80, 9), dtype=np.uint8)
    X[y == 0, :4] += 120
    X[y == 1, 5:] += 120
    return X, y


def read_idx(path):
    """An IDX file of bytes, read here without fastmlp: magic, counts, bytes."""
    with gzip.open(path) as file:
        _, kind, ndim = struct.unpack(">HBB", file.read(4))
        assert kind == 8
        shape = struct.unpack(f">{ndim}I", file.read(4 * ndim))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


@pytest.fixture(scope="session")
def mnist():
    """X (42000, 784), y (42000,) to train on; X (10000, 784), y (10000,) to test on; all uint8."""
    folder = os.environ.get("FASTMLP_MNIST")
    if not folder:
        pytest.skip("FASTMLP_MNIST does not name a folder with MNIST's four .gz files")
    parts = []
    for part, rows in (("train", 42_000), ("t10k", 10_000)):
        images = read_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz")  # (N, 28, 28)
        labels = read_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz")  # (N,)
        parts += [images.reshape(len(images), -1)[:rows], labels[:rows]]
    return parts

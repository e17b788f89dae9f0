"""fastmlp.train and its models on the CuPy backend, over the stand-in for CuPy."""

from __future__ import annotations

import pickle

import fake_array
import fake_card
import fake_cupy
import numpy as np
import pytest

import fastmlp
from fastmlp.backends import load
from fastmlp.errors import BackendUnavailable, DataError, OptionError

QUIET = {"progress": False, "strict": True}


@pytest.fixture
def pixels():
    """X (100, 12) uint8, y (100,): the brightest of the first three pixels."""
    X = np.random.default_rng(7).integers(0, 256, (100, 12)).astype(np.uint8)
    return X, X[:, :3].argmax(axis=1)


def elsewhere(array):
    """`array` of another library, on the GPU, that speaks DLPack alone."""

    class Tensor:
        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self):
            return fake_cupy.asarray(array)

    return Tensor()


@pytest.mark.parametrize("kind", ["uint8", "real"])
def test_training_is_that_of_the_numpy_backend(kind, cupy, pixels):
    X, y = pixels
    X = X if kind == "uint8" else X / 255
    options = dict(validation=0.2, hidden=(9, 8), epochs=3, precision="float64", batch_size=32, **QUIET)
    model, expected = (fastmlp.train(X, y, backend=name, **options) for name in ("cupy", "numpy"))
    assert model.report.backend == "cupy"
    assert model.report.device == "Emulated card, 3 GiB, compute capability 9.0"
    assert model.report.launches == "CUDA graphs of up to 32 steps"
    assert expected.report.launches is None
    for got, want in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    assert model.history.validation_loss == pytest.approx(expected.history.validation_loss)


def test_the_host_reads_three_times_an_epoch(cupy, pixels):
    options = dict(validation=0.2, hidden=(9,), **QUIET)
    reads = []
    load("cupy")  # the probe reads too
    for epochs in (1, 4):
        before = fake_array.host_reads
        fastmlp.train(*pixels, backend="cupy", batch_size=8, epochs=epochs, **options)
        reads.append(fake_array.host_reads - before)
    assert reads[1] - reads[0] == 3 * 3  # totals twice and weights, not steps


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
def test_fewer_bits_learn_as_well(precision, cupy, pixels):
    options = dict(hidden=(16,), epochs=10, batch_size=10, **QUIET)
    model = fastmlp.train(*pixels, backend="cupy", precision=precision, **options)
    exact = fastmlp.train(*pixels, backend="numpy", **options)
    assert model.report.precision == precision
    assert model.parameters.dtype == np.float32
    assert model.history.train_loss[-1] == pytest.approx(exact.history.train_loss[-1], rel=0.02)
    assert model.predict_proba(pixels[0]).dtype == np.float32
    with pytest.raises(OptionError, match=f"the numpy backend cannot compute in {precision}: it computes in float32"):
        fastmlp.train(*pixels, backend="numpy", precision=precision, **options)


def test_an_older_card_says_what_it_lacks(cupy, pixels, monkeypatch):
    monkeypatch.setattr(cupy.Device, "compute_capability", "75")
    fastmlp.train(*pixels, backend="cupy", precision="float16", epochs=1, **QUIET)
    with pytest.raises(
        OptionError, match=r"cannot compute in bfloat16: it needs compute capability 8.0, this card has 7.5"
    ):
        fastmlp.train(*pixels, backend="cupy", precision="bfloat16", **QUIET)


def test_a_saved_model_predicts_on_the_cpu(cupy, pixels, tmp_path):
    model = fastmlp.train(*pixels, backend="cupy", precision="float16", epochs=2, **QUIET)
    model.save(tmp_path / "m.safetensors")
    other = fastmlp.load(tmp_path / "m.safetensors", backend="numpy")
    np.testing.assert_allclose(other.predict_proba(pixels[0]), model.predict_proba(pixels[0]), atol=2e-3)


@pytest.mark.parametrize("wrap", [fake_cupy.asarray, elsewhere], ids=["cupy", "dlpack"])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_rows_on_the_gpu_are_taken_in_place(kind, wrap, cupy, pixels, monkeypatch):
    X, y = pixels[0].astype(kind), pixels[1]
    X = X / 255 if kind == "float32" else X
    given = fake_cupy.asarray(X.astype(kind))
    monkeypatch.setattr(fake_cupy, "from_dlpack", lambda array: given)
    options = dict(epochs=2, batch_size=20, **QUIET)
    expected = fastmlp.train(X.astype(kind), y, backend="cupy", **options)
    from fastmlp.backends import cupy_data

    upload, uploaded = cupy_data.upload, []
    monkeypatch.setattr(cupy_data, "upload", lambda array: (uploaded.append(array.shape), upload(array))[1])
    model = fastmlp.train(given if wrap is not elsewhere else elsewhere(X), wrap(y) if wrap is not elsewhere else y,
                          backend="cupy", **options)  # fmt: skip
    assert X.shape not in uploaded
    np.testing.assert_array_equal(model.parameters, expected.parameters)
    np.testing.assert_array_equal(model.predict(given), expected.predict(X.astype(kind)))
    assert model.score(given, y) == expected.score(X.astype(kind), y)


def test_bad_rows_on_the_gpu_are_refused_as_any(cupy, pixels):
    X = (pixels[0] / 255).astype(np.float32)
    X[4, 2] = np.nan
    with pytest.raises(DataError, match=r"X\[4, 2\] is nan"):
        fastmlp.train(fake_cupy.asarray(X), pixels[1], backend="cupy", **QUIET)
    with pytest.raises(DataError, match="expected X in the host's memory"):
        fastmlp.train(fake_cupy.asarray(X), pixels[1], backend="cupy", scale="standard", **QUIET)
    with pytest.raises(
        DataError, match=r"numpy backend computes on the CPU, and the array lies on a GPU.*backend='cupy'"
    ):
        fastmlp.train(fake_cupy.asarray(pixels[0]), pixels[1], backend="numpy", **QUIET)
    model = fastmlp.train(*pixels, backend="numpy", epochs=1, **QUIET)
    with pytest.raises(DataError, match="lies on a GPU"):
        model.predict(fake_cupy.asarray(pixels[0]))


def test_without_cupy_rows_on_a_gpu_are_refused(fresh, pixels):
    fresh.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(DataError, match="X lies on a GPU, and CuPy, which would read it there, cannot be imported"):
        fastmlp.train(elsewhere(pixels[0]), pixels[1], **QUIET)


def test_device_picks_the_card(cupy, pixels, monkeypatch):
    with pytest.raises(BackendUnavailable, match="no CUDA device 1"):
        fastmlp.train(*pixels, backend="cupy", device=1, **QUIET)
    load.cache_clear()
    monkeypatch.setattr(fake_card, "DEVICES", 2)
    model = fastmlp.train(*pixels, backend="cupy", device=1, epochs=1, **QUIET)
    assert model.plan.device.id == 1
    assert model.report.device.endswith(", device 1")
    assert pickle.loads(pickle.dumps(model)).plan.device.id == 1
    with pytest.raises(DataError, match="expected an array on GPU 1, where the network is, got one on GPU 0"):
        model.predict(fake_cupy.asarray(pixels[0]))
    with pytest.raises(OptionError, match="device: expected a whole number from 0; got -1"):
        fastmlp.train(*pixels, device=-1, **QUIET)


def test_a_batch_for_which_there_is_no_room_passes_in_tiles(cupy, monkeypatch):
    X = np.random.default_rng(1).integers(0, 256, (1500, 40)).astype(np.uint8)
    y = X[:, :4].argmax(axis=1)
    options = dict(batch_size="full", epochs=2, backend="cupy", hidden=(30,), precision="float64", **QUIET)
    expected = fastmlp.train(X, y, **options)
    monkeypatch.setattr(fake_card, "memory_limit", fake_card.memory_used + 900_000)
    with pytest.warns(UserWarning, match=r"no room for 1,500 rows on their way at once: .* tiles of 375 rows"):
        model = fastmlp.train(X, y, **options)
    assert model.plan.tile_rows < 1500
    np.testing.assert_allclose(model.parameters, expected.parameters, rtol=1e-9, atol=1e-12)

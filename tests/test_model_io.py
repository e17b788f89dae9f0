"""Model files: what is saved comes back, and nothing else is taken for one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fastmlp
from fastmlp import ModelFileError, OptionError, load, train

OPTIONS = {"hidden": (5,), "epochs": 2, "batch_size": 16, "progress": False}


@pytest.fixture
def model(backend, blobs, dtype):
    return train(*blobs, **OPTIONS, backend=backend.name, precision=dtype.name, scale="standard", validation=0.2)


@pytest.fixture
def saved(blobs, tmp_path):
    """A model of 4-5-3 on disk."""
    path = tmp_path / "model.safetensors"
    train(*blobs, **OPTIONS, backend="numpy", scale="standard").save(path)
    return path


def test_what_is_saved_comes_back(model, backend, blobs, tmp_path):
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", backend=backend.name)
    assert again.sizes == model.sizes
    assert again.history == model.history
    assert again.report == model.report
    assert again.inputs.features == 4
    assert again.inputs.pixels == model.inputs.pixels
    assert again.inputs.columns is None
    for got, want in zip(
        (again.parameters, again.classes, again.inputs.mean, again.inputs.deviation),
        (model.parameters, model.classes, model.inputs.mean, model.inputs.deviation),
        strict=True,
    ):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(again.predict_proba(blobs[0]), model.predict_proba(blobs[0]))


def test_another_process_predicts_the_same_bits(model, backend, blobs, tmp_path):
    model.save(tmp_path / "m")
    np.save(tmp_path / "x.npy", blobs[0])
    code = (
        "import sys, numpy as np, fastmlp; folder, backend = sys.argv[1:]; "
        "model = fastmlp.load(folder + '/m', backend=backend); "
        "np.save(folder + '/p.npy', model.predict_proba(np.load(folder + '/x.npy')))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), backend.name], check=True)
    got, want = np.load(tmp_path / "p.npy"), model.predict_proba(blobs[0])
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


def test_a_loaded_model_can_learn_on(model, backend, blobs, tmp_path):
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", backend=backend.name)
    losses = [again.backprop(*blobs) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_saving_twice_gives_the_same_bytes(model, tmp_path):
    model.save(tmp_path / "one")
    load(tmp_path / "one", backend=model.backend.name).save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_plain_safetensors_opens_it(saved):
    tensors = load_file(saved)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "W0": (4, 5), "b0": (5,), "W1": (5, 3), "b1": (3,), "mean": (4,), "deviation": (4,),
    }  # fmt: skip
    with safe_open(saved, "numpy") as file:
        header = json.loads(file.metadata()["fastmlp"])
    assert header["version"] == 2
    assert header["network"] == {"activation": "relu", "loss": "cross_entropy", "numbers": [], "dropout": 0.0}
    assert header["sizes"] == [4, 5, 3]
    assert header["report"]["optimizer"] == "momentum"


@pytest.mark.parametrize("hidden", [(), (6, 5), (6, 5, 4)], ids=str)
def test_any_depth_comes_back(blobs, tmp_path, hidden):
    model = train(*blobs, **{**OPTIONS, "hidden": hidden}, backend="numpy")
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", backend="numpy")
    np.testing.assert_array_equal(again.parameters, model.parameters)
    assert again.inputs.mean is None


def test_the_network_comes_back_with_all_its_options(backend, blobs, tmp_path):
    model = train(
        *blobs, **{**OPTIONS, "hidden": (6, 5)}, backend=backend.name, optimizer="adamw", activation=("gelu", "tanh"),
        dropout=0.25, l2=0.01, weight_decay=0.2, clip=1.5, schedule="cosine", warmup=1, label_smoothing=0.1,
    )  # fmt: skip
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", backend=backend.name)
    assert again.network == model.network
    assert again.network.activation == ("gelu", "tanh")
    assert (again.network.dropout, again.network.numbers) == (0.25, (0.1, 0.0, 0.0))
    report = again.report
    assert (report.l2, report.weight_decay, report.clip) == (0.01, 0.2, 1.5)
    assert (report.schedule, report.warmup) == ("cosine", 1.0)
    assert report == model.report
    np.testing.assert_array_equal(again.predict_proba(blobs[0]), model.predict_proba(blobs[0]))
    assert again.evaluate(*blobs) == model.evaluate(*blobs)
    plain = train(*blobs, **{**OPTIONS, "hidden": (6, 5)}, backend=backend.name)
    plain.parameters[:] = model.parameters
    assert not np.allclose(plain.predict_proba(blobs[0]), model.predict_proba(blobs[0]), atol=1e-4)


def test_a_file_of_version_1_is_read(tmp_path):
    """Made by hand, as that version wrote it: ReLU layers, no word of the network, a report without newer facts."""
    tensors = {
        "W0": np.array([[1, -1], [0.5, 2]], np.float32), "b0": np.array([0, 1], np.float32),
        "W1": np.array([[1, 0], [0, -1]], np.float32), "b1": np.array([0.5, 0], np.float32),
    }  # fmt: skip
    report = {
        "backend": "numpy", "requested": "auto", "reason": "it works", "threads": 1, "precision": "float32", "seed": 3,
        "optimizer": "adamw", "learning_rate": 0.1, "beta": 0.9, "batch_size": 2, "rows": 4, "validation_rows": 0,
        "epochs": 1, "stopped": "all epochs done", "blas": None, "device": None, "versions": {"fastmlp": "0.0"},
    }  # fmt: skip
    history = {
        "train_loss": [0.5], "train_accuracy": [1.0], "validation_loss": [], "validation_accuracy": [],
        "seconds": [1.0],
    }  # fmt: skip
    header = {
        "version": 1, "sizes": [2, 2, 2], "pixels": False, "classes": [3, 8], "classes_type": "<i8", "history": history,
        "report": report,
    }  # fmt: skip
    save_file(tensors, tmp_path / "m", metadata={"fastmlp": json.dumps(header)})
    model = load(tmp_path / "m", backend="numpy")
    # x = (1, 1): z = (1.5, 2), a = z; logits (1.5 + 0.5, -2). x = (-1, 1): z = (-0.5, 4), a = (0, 4); logits (0.5, -4)
    p = 1 / (1 + np.exp([-4, -4.5]))
    np.testing.assert_allclose(model.predict_proba(np.array([[1.0, 1], [-1, 1]]))[:, 0], p, rtol=1e-6)
    assert model.predict([[1.0, 1.0]]).tolist() == [3]
    assert model.network.activation == "relu"
    assert (model.report.weight_decay, model.report.l2, model.report.schedule) == (0.0, 0.0, "constant")
    model.save(tmp_path / "again")
    assert load(tmp_path / "again", backend="numpy").report == model.report


def test_a_net_of_pixels_comes_back_as_one(pixels, tmp_path):
    X, y = pixels
    model = train(X, y, **OPTIONS, backend="numpy")
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", backend="numpy")
    assert again.inputs.pixels
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    "classes",
    [
        np.array([-3, 5, 2**40]),
        np.uint8([1, 2, 250]),
        np.array(["a", "é", "a name\nwith a line"]),
        np.array([0.0, 1.0, 7.0]),
        np.array(["", " ", "\U0001f600"]),
    ],
    ids=["int64", "uint8", "text", "float", "odd text"],
)  # fmt: skip
def test_classes_survive(blobs, tmp_path, classes):
    model = train(blobs[0], classes[blobs[1]], **OPTIONS, backend="numpy")
    model.save(tmp_path / "m")
    again = load(tmp_path / "m", backend="numpy")
    assert again.classes.dtype == model.classes.dtype
    np.testing.assert_array_equal(again.predict(blobs[0]), model.predict(blobs[0]))


def test_classes_of_long_doubles_become_float64(blobs, tmp_path):
    model = train(blobs[0], blobs[1].astype(np.longdouble), **OPTIONS, backend="numpy")
    model.save(tmp_path / "m")
    assert load(tmp_path / "m", backend="numpy").classes.dtype == model.classes.dtype == np.float64


def test_bool_and_object_classes_survive(blobs, tmp_path):
    for y in (blobs[1] == 0, np.array(["x", "yy"], dtype=object)[(blobs[1] == 0).astype(int)]):
        model = train(blobs[0], y, **OPTIONS, backend="numpy")
        model.save(tmp_path / "m")
        again = load(tmp_path / "m", backend="numpy")
        assert again.classes.dtype == model.classes.dtype
        assert again.score(blobs[0], y) == model.score(blobs[0], y)


# Refused.


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such model file"):
        load(tmp_path / "none")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="expected a model file"):
        load(tmp_path)


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelFileError, match="expected a model file of fastmlp"):
        load(saved)


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 100])
def test_a_few_bytes_or_a_few_missing_are_refused(saved, cut):
    whole = saved.read_bytes()
    for part in (whole[:cut], whole[:-cut], whole + b"x" * cut):
        saved.write_bytes(part)
        with pytest.raises(ModelFileError):
            load(saved)


@pytest.mark.parametrize("seed", range(10))
def test_random_bytes_are_refused(tmp_path, seed):
    (tmp_path / "m").write_bytes(np.random.default_rng(seed).bytes(2000))
    with pytest.raises(ModelFileError, match="expected a model file of fastmlp"):
        load(tmp_path / "m")


def test_a_pickle_is_refused_and_not_run(tmp_path):
    flag = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (flag,)

    import pickle

    (tmp_path / "m").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelFileError):
        load(tmp_path / "m")
    assert not flag.exists()


def test_the_package_never_unpickles():
    for path in Path(fastmlp.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text, path
        assert "allow_pickle=True" not in text, path
        assert "import joblib" not in text, path


def test_safetensors_of_another_kind_are_refused(tmp_path):
    save_file({"weight": np.zeros(3)}, tmp_path / "m")
    with pytest.raises(ModelFileError, match="a safetensors file of another kind"):
        load(tmp_path / "m")


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3"])
def test_safetensors_of_types_that_numpy_lacks_are_refused(tmp_path, kind):
    header = json.dumps(
        {"a": {"dtype": kind, "shape": [1, 2], "data_offsets": [0, 4 if kind == "BF16" else 2]}}
    ).encode()
    refused = f"cannot be read: NumPy has no {kind}"
    for metadata, message in ((b"", "of another kind"), (b'"__metadata__": {"fastmlp": "{}"}, ', refused)):
        whole = header[:1] + metadata + header[1:]
        (tmp_path / "m").write_bytes(len(whole).to_bytes(8, "little") + whole + bytes(4 if kind == "BF16" else 2))
        with pytest.raises(ModelFileError, match=message):
            load(tmp_path / "m")


def rewrite(path, change_header=None, change_tensors=None):
    """The file with its header or its tensors changed."""
    with safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["fastmlp"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    if change_header is not None:
        header = change_header(header)
    if change_tensors is not None:
        tensors = change_tensors(tensors)
    save_file(tensors, path, metadata={"fastmlp": header if isinstance(header, str) else json.dumps(header)})


@pytest.mark.parametrize("version", [0, 3, "1", None, True, 1.0])
def test_another_version_is_refused(saved, version):
    rewrite(saved, lambda header: header | {"version": version})
    with pytest.raises(ModelFileError, match=r"expected version 1 or 2 of the model file; got .*; update fastmlp"):
        load(saved)


HEADERS = {
    "no JSON": lambda h: "not json {",
    "a list": lambda h: [1, 2],
    "empty": lambda h: {"version": 2},
    "no network": lambda h: {k: v for k, v in h.items() if k != "network"},
    "a network of text": lambda h: h | {"network": "relu"},
    "another part of the network": lambda h: h | {"network": {"depth": 3}},
    "sizes twice": lambda h: h | {"network": {"sizes": [4, 5, 3]}},
    "an unknown activation": lambda h: h | {"network": {"activation": "swish"}},
    "no activation": lambda h: h | {"network": {"activation": None}},
    "too many activations": lambda h: h | {"network": {"activation": ["relu", "tanh"]}},
    "an unknown loss": lambda h: h | {"network": {"loss": "hinge"}},
    "a loss of another kind": lambda h: h | {"network": {"loss": "squared_error"}},
    "too few numbers": lambda h: h | {"network": {"numbers": [0.1]}},
    "numbers of text": lambda h: h | {"network": {"numbers": ["a", "b", "c"]}},
    "endless numbers": lambda h: h | {"network": {"numbers": [1e400, 0, 0]}},
    "everything left out": lambda h: h | {"network": {"dropout": 1}},
    "dropout of text": lambda h: h | {"network": {"dropout": "half"}},
    "no sizes": lambda h: {k: v for k, v in h.items() if k != "sizes"},
    "no classes": lambda h: {k: v for k, v in h.items() if k != "classes"},
    "no report": lambda h: {k: v for k, v in h.items() if k != "report"},
    "no layers": lambda h: h | {"sizes": []},
    "one layer": lambda h: h | {"sizes": [3]},
    "other sizes": lambda h: h | {"sizes": [4, 6, 3]},
    "more layers": lambda h: h | {"sizes": [4, 5, 5, 3]},
    "fewer layers": lambda h: h | {"sizes": [4, 3]},
    "negative sizes": lambda h: h | {"sizes": [4, -5, 3]},
    "endless sizes": lambda h: h | {"sizes": [4, 1e400, 3]},
    "huge sizes": lambda h: h | {"sizes": [10**9, 10**9, 3]},
    "sizes as text": lambda h: h | {"sizes": "abc"},
    "too few classes": lambda h: h | {"classes": [0, 1]},
    "too many classes": lambda h: h | {"classes": [0, 1, 2, 3]},
    "nested classes": lambda h: h | {"classes": [[0, 1], [1, 2], [2, 3]]},
    "classes of another type": lambda h: h | {"classes": ["a", "b", "c"]},
    "unknown type": lambda h: h | {"classes_type": "q9"},
    "object type": lambda h: h | {"classes_type": "|O"},
    "unsorted classes": lambda h: h | {"classes": [2, 0, 1]},
    "too few columns": lambda h: h | {"columns": ["a", "b", "c"]},
    "no column": lambda h: h | {"columns": []},
    "columns of numbers": lambda h: h | {"columns": [0, 1, 2, 3]},
    "columns in one text": lambda h: h | {"columns": "abcd"},
    "columns of another kind": lambda h: h | {"columns": {"a": 0, "b": 1, "c": 2, "d": 3}},
    "columns switched off": lambda h: h | {"columns": False},
    "an unknown optimizer": lambda h: h | {"report": h["report"] | {"optimizer": "rmsprop"}},
    "history of another kind": lambda h: h | {"history": {"speed": []}},
    "report of another kind": lambda h: h | {"report": {"speed": 1}},
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_fit_is_refused(saved, change):
    rewrite(saved, change)
    with pytest.raises(ModelFileError):
        load(saved, backend="numpy")


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


TENSORS = {
    "no W0": without("W0"),
    "no b1": without("b1"),
    "mean without deviation": without("deviation"),
    "deviation without mean": without("mean"),
    "another shape": lambda t: t | {"W1": np.zeros((3, 5), np.float32)},
    "a scalar": lambda t: t | {"b0": np.zeros((), np.float32)},
    "one of another type": lambda t: t | {"b0": t["b0"].astype(np.float64)},
    "all float16": lambda t: {k: v.astype(np.float16) for k, v in t.items()},
    "all integers": lambda t: {k: v.astype(np.int64) for k, v in t.items()},
    "short mean": lambda t: t | {"mean": np.zeros(1), "deviation": np.ones(1)},
    "mean of another length": lambda t: t | {"mean": np.zeros(7), "deviation": np.ones(7)},
}


@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS)
def test_tensors_that_do_not_fit_are_refused(saved, change):
    rewrite(saved, change_tensors=change)
    with pytest.raises(ModelFileError, match="do not fit"):
        load(saved, backend="numpy")


# Saving harms nothing.


def test_saving_over_an_old_model_replaces_it(saved, pixels):
    other = train(*pixels, **OPTIONS, backend="numpy")
    other.save(saved)
    assert load(saved, backend="numpy").sizes == (9, 5, 2)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_failed_save_leaves_the_old_file(saved, pixels, monkeypatch):
    before = saved.read_bytes()

    def fail(self, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises((OSError, OptionError)):
            train(*pixels, **OPTIONS, backend="numpy").save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_path_that_cannot_be_written_is_refused(saved, tmp_path):
    model = load(saved, backend="numpy")
    with pytest.raises(OptionError, match="got a folder"):
        model.save(tmp_path)
    with pytest.raises(OptionError, match="create it first"):
        model.save(tmp_path / "none" / "m")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(saved, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(OptionError, match="choose another folder"):
        load(saved, backend="numpy").save(folder / "m")


@pytest.mark.parametrize("threads", [0, -1, 2.5, "2"])
def test_load_refuses_an_impossible_number_of_threads(saved, backend, threads):
    with pytest.raises(OptionError, match="threads: expected a whole number from 1, or None"):
        load(saved, backend=backend.name, threads=threads)


def test_load_takes_a_backend_and_refuses_an_unknown_one(saved):
    assert load(saved, backend="numba").backend.name == "numba"
    with pytest.raises(OptionError, match="backend: expected one of"):
        load(saved, backend="torch")

"""`fastmlp train`: what it writes and says, how its options arrive, and how it ends."""

import json

import numpy as np
import pytest
from command import SMALL, numba_is_broken, refuse, run, write_csv

import fastmlp
from fastmlp import data, training
from fastmlp.backends.plan import OpsLearner
from fastmlp.cli import datasets


def test_train_writes_model_report_and_plot(tmp_path, images):
    paths = tmp_path / "model", tmp_path / "report.json", tmp_path / "plot.svg"
    result = run("train", images, *SMALL, "--save", paths[0], "--report", paths[1], "--plot", paths[2])
    written = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("wrote")]
    assert written == [str(path) for path in paths]
    assert result.stderr.count("\n") == 3
    assert paths[2].read_text().lstrip().startswith("<?xml")
    found = fastmlp.load(paths[0], backend="numpy")
    assert found.sizes == (9, 8, 2)
    assert found.report.backend == "numpy"

    report = json.loads(paths[1].read_text())
    kept = found.report.to_dict()
    assert {name: report[name] for name in kept} == kept
    assert report["data"] == str(images)
    assert report["command"].startswith(f"fastmlp train {images} --backend numpy")
    assert (report["backend"], report["precision"], report["seed"], report["epochs"]) == ("numpy", "float32", 0, 3)
    assert report["threads"] == found.report.threads
    assert report["history"] == json.loads(found.history.to_json())
    assert report["history"].pop("validation_score") == []  # of early stopping
    assert {len(values) for values in report["history"].values()} == {3}
    with np.load(images) as arrays:
        assert (report["test_loss"], report["test_accuracy"]) == found.evaluate(arrays["x_test"], arrays["y_test"])
    assert f"accuracy {report['test_accuracy']:.4f}" in result.stdout


def test_without_a_test_part_none_is_reported(tmp_path, flowers):
    result = run("train", flowers, *SMALL, "--report", tmp_path / "r.json")
    assert not [name for name in json.loads((tmp_path / "r.json").read_text()) if name.startswith("test")]
    assert "test " not in result.stdout


def test_every_option_arrives(tmp_path, flowers):
    run("train", flowers, "--backend", "numpy", "--hidden", "6, 5", "--epochs", 2, "--batch-size", "full",
        "--optimizer", "sgd", "--learning-rate", 0.25, "--beta", 0.5, "--precision", "float64", "--seed", 4,
        "--threads", 1, "--strict", "--validation", 0.5, "--scale", "none", "--save", tmp_path / "m",
        "--activation", "gelu, tanh", "--dropout", 0.25, "--l2", 0.125, "--clip", 2, "--schedule", "linear",
        "--warmup", 0.5, "--label-smoothing", 0.1, "--report", tmp_path / "r.json")  # fmt: skip
    found = fastmlp.load(tmp_path / "m")
    report = found.report
    assert found.sizes == (4, 6, 5, 3)
    assert (report.batch_size, report.rows, report.validation_rows, report.epochs) == (45, 45, 45, 2)
    assert (report.optimizer, report.learning_rate, report.beta, report.seed) == ("sgd", 0.25, 0.5, 4)
    assert (report.precision, report.backend, report.requested, report.threads) == ("float64", "numpy", "numpy", 1)
    assert found.inputs.mean is None
    assert (report.l2, report.clip, report.schedule, report.warmup) == (0.125, 2, "linear", 0.5)
    network = json.loads((tmp_path / "r.json").read_text())["network"]
    assert network == {
        "sizes": [4, 6, 5, 3], "activation": ["gelu", "tanh"], "loss": "cross_entropy", "numbers": [0.1, 0, 0],
        "dropout": 0.25,
    }  # fmt: skip
    run("train", flowers, *SMALL, "--optimizer", "adamw", "--weight-decay", 0.3, "--save", tmp_path / "m")
    assert fastmlp.load(tmp_path / "m").report.weight_decay == 0.3


def test_it_trains_as_the_library_does(tmp_path, flowers):
    run("train", flowers, *SMALL, "--save", tmp_path / "m")
    read = data.read(flowers)
    same = fastmlp.train(
        read.X, read.y, validation=0.2, scale="standard", hidden=8, epochs=3, batch_size=16, backend="numpy",
        progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(fastmlp.load(tmp_path / "m").parameters, same.parameters)


def test_numbers_are_standardised_and_pixels_are_not(tmp_path, flowers, images):
    for source, standardised in ((flowers, True), (images, False)):
        run("train", source, *SMALL, "--save", tmp_path / "m")
        assert (fastmlp.load(tmp_path / "m").inputs.mean is not None) is standardised


def test_hidden_may_be_empty(tmp_path, flowers):
    run("train", flowers, *SMALL, "--hidden", "", "--save", tmp_path / "m")
    assert fastmlp.load(tmp_path / "m").sizes == (4, 3)


@pytest.mark.parametrize(("args", "rows"), [((), 18), (("--validation", 0.5), 45), (("--validation", 0), 0)])
def test_validation_rows(tmp_path, flowers, args, rows):
    result = run("train", flowers, *SMALL, *args, "--save", tmp_path / "m")
    assert fastmlp.load(tmp_path / "m").report.validation_rows == rows
    assert ("validation  accuracy" in result.stdout) is (rows > 0)


def test_without_data_it_trains_on_the_digits_and_their_own_validation(tmp_path, few_digits):
    result = run("train", *SMALL, "--save", tmp_path / "m")
    assert "trained on 300 rows of built-in digits" in result.stdout
    assert fastmlp.load(tmp_path / "m").report.validation_rows == 100


def test_npy_rows_with_npy_labels(tmp_path, blobs):
    np.save(tmp_path / "X.npy", blobs[0])
    np.save(tmp_path / "y.npy", blobs[1])
    assert "72 rows" in run("train", tmp_path / "X.npy", "--labels", tmp_path / "y.npy", *SMALL).stdout


def test_target_names_the_label_column(tmp_path, blobs):
    write_csv(tmp_path / "t.csv", *blobs, target="kind")
    assert "4-8-3" in run("train", tmp_path / "t.csv", "--target", "kind", *SMALL).stdout


def test_summary_says_what_ran_and_why(flowers):
    shown = run("train", flowers, *SMALL).stdout
    assert "backend     numpy" in shown
    assert "asked for" in shown
    assert "validation  accuracy" in shown


def interrupt_after(monkeypatch, epochs):
    """Ctrl-C comes while epoch `epochs` is shown."""
    shown = []

    def show(model):
        shown.append(model)
        if len(shown) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "live_table", lambda *args: __import__("contextlib").nullcontext(show))


def test_interrupted_it_keeps_the_model_writes_all_and_exits_130(monkeypatch, tmp_path, images):
    interrupt_after(monkeypatch, 2)
    paths = tmp_path / "m", tmp_path / "r.json", tmp_path / "p.png"
    result = run("train", images, *SMALL, "--save", paths[0], "--report", paths[1], "--plot", paths[2], code=130)
    assert result.stderr == "warning: interrupted in epoch 3: the model so far is kept\n"
    assert "training    2 epochs" in result.stdout
    report = json.loads(paths[1].read_text())
    assert (report["stopped"], report["epochs"], len(report["history"]["seconds"])) == ("interrupted", 2, 2)
    assert "test_accuracy" in report
    assert fastmlp.load(paths[0]).report.epochs == 2
    assert paths[2].stat().st_size > 1000


def test_interrupted_in_the_first_epoch_it_writes_nothing(monkeypatch, tmp_path, images):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(OpsLearner, "epoch", interrupted)
    saved = tmp_path / "m"
    saved.write_bytes(b"worth more")
    result = run("train", images, *SMALL, "--backend", "numpy", "--save", saved, code=130)
    assert "nothing was written" in result.stderr
    assert saved.read_bytes() == b"worth more"


def test_interrupted_while_reading_it_writes_nothing(monkeypatch, tmp_path, flowers):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "read", interrupted)
    result = run("train", flowers, "--save", tmp_path / "m", code=130)
    assert result.output == ""
    assert not (tmp_path / "m").exists()


def test_fallback_is_one_warning_line(monkeypatch, flowers):
    numba_is_broken(monkeypatch)
    result = run("train", flowers, *SMALL, "--backend", "numba")
    (warned,) = (line for line in result.stderr.splitlines() if not line.startswith("epoch"))
    assert warned.startswith("warning: backend numba is not usable (OSError: no room)")
    assert warned.endswith(": numpy runs instead")
    assert "backend     numpy" in result.stdout


def test_strict_refuses_to_fall_back(monkeypatch, flowers):
    numba_is_broken(monkeypatch)
    refuse("train", flowers, *SMALL, "--backend", "numba", "--strict", say=["numba is not usable", "no room"])

"""The command line: what each command does, what it refuses, and what it leaves alone."""

import csv
import importlib.metadata
import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fastmlp
from fastmlp import backends, bench, cli, data, training
from fastmlp.backends.numpy import NumpyBackend
from fastmlp.backends.plan import OpsLearner
from fastmlp.errors import TrainingDiverged

NUMPY = ("--backend", "numpy")
SMALL = (*NUMPY, "--hidden", "8", "--epochs", "3", "--batch-size", "16")


def run(*args, code=0):
    """`fastmlp ARGS` in this process; fails on another exit code or on an escaped exception."""
    result = CliRunner(env={"COLUMNS": "100"}).invoke(cli.app, [str(arg) for arg in args], prog_name="fastmlp")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == code, result.output
    return result


def refuse(*args, say=()):
    """`fastmlp ARGS` is refused: exit code 2, nothing on stdout, one line on stderr that has all of `say`."""
    result = run(*args, code=2)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert not [words for words in say if words not in result.stderr], result.stderr
    return result


def start(*args, **options):
    """`python -m fastmlp ARGS` as a process of its own."""
    env = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    command = [sys.executable, "-m", "fastmlp", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **options)


def write_csv(path, X, y=None, target="label"):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*"abcdefghi"[: X.shape[1]], *([target] if y is not None else [])])
        writer.writerows([*map(float, row), *([y[n]] if y is not None else [])] for n, row in enumerate(X))


@pytest.fixture
def flowers(tmp_path, blobs):
    """A CSV of 90 rows, four columns of numbers and a text label."""
    X, y = blobs
    write_csv(tmp_path / "flowers.csv", X, np.array(["iris", "lily", "rose"])[y])
    return tmp_path / "flowers.csv"


@pytest.fixture
def images(tmp_path, pixels):
    """An .npz of 60 rows of pixels to train on and 20 to test on."""
    X, y = pixels
    np.savez(tmp_path / "images.npz", x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
    return tmp_path / "images.npz"


@pytest.fixture
def model(tmp_path, flowers):
    """A model file trained on the flowers."""
    run("train", flowers, *SMALL, "--epochs", 20, "--save", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def few_digits(monkeypatch):
    """Stands for the built-in digits: 784 pixels, 300 rows and 100 for validation."""
    rng = np.random.default_rng(3)
    X, y = rng.integers(0, 256, (400, 784), dtype=np.uint8), np.arange(400) % 10
    few = data.Dataset("built-in digits", X[:300], y[:300], (X[300:], y[300:]))
    monkeypatch.setattr(data, "digits", lambda: few)
    return few


# The whole.


def test_alone_it_shows_help():
    shown = run().stdout
    assert all(command in shown for command in ("train", "predict", "evaluate", "info", "bench", "--version"))


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [(), ("train",), ("predict",), ("evaluate",), ("info",), ("bench",)])
def test_help(command, flag):
    assert "Usage: fastmlp" in run(*command, flag).stdout


def test_version():
    assert run("--version").stdout == f"fastmlp {importlib.metadata.version('fastmlp')}\n"


def test_defaults_are_those_of_train():
    library, command = inspect.signature(fastmlp.train).parameters, inspect.signature(cli.train).parameters
    shared = set(library) & set(command)
    assert shared >= {"hidden", "epochs", "batch_size", "optimizer", "beta", "precision", "seed", "backend", "threads"}
    for name in shared - {"hidden", "batch_size"}:
        assert command[name].default == library[name].default, name
    assert cli.parse_hidden(command["hidden"].default) == library["hidden"].default
    assert cli.parse_batch_size(command["batch_size"].default) == library["batch_size"].default


def test_import_of_the_package_leaves_the_command_line_alone():
    code = "import sys, fastmlp; print({'typer', 'rich', 'fastmlp.cli', 'fastmlp.bench'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_in_a_pipe_there_are_plain_lines_and_no_escape_codes(flowers):
    process = start("train", flowers, *SMALL)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0
    assert "\x1b" not in out + err
    assert [line.split("  ")[0] for line in err.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "network     4-8-3, trained on 72 rows of" in out


def test_a_closed_pipe_is_quiet(flowers, model):
    with start("predict", model, flowers) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(100) == cli.PIPE_CLOSED


def test_a_real_bug_keeps_its_traceback(monkeypatch, flowers):
    monkeypatch.setattr(fastmlp, "train", lambda *args, **options: 1 / 0)
    result = CliRunner().invoke(cli.app, ["train", str(flowers)])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31mred", "bell\x07", "half \udcff", "\u202eright to left"])
def test_no_message_can_command_the_terminal(monkeypatch, flowers, text):
    def broken(*args, **options):
        raise data.DataError(text)

    monkeypatch.setattr(cli, "read", broken)
    message = refuse("train", flowers).stderr
    assert message.rstrip("\n").isprintable()


# train


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

    monkeypatch.setattr(cli, "read", interrupted)
    result = run("train", flowers, "--save", tmp_path / "m", code=130)
    assert result.output == ""
    assert not (tmp_path / "m").exists()


def numba_is_broken(monkeypatch):
    load = backends.load
    monkeypatch.setattr(backends, "load", lambda name: "OSError: no room" if name == "numba" else load(name))


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


# What train refuses. Nothing is trained or written then.


@pytest.mark.parametrize(
    ("args", "say"),
    [
        (["missing.csv"], ["missing.csv", "expected a file or folder", "check the path"]),
        (["flowers.txt"], ["flowers.txt", "expected"]),
        (["flowers.csv", "--target", "colour"], ["expected a label column 'colour'", "--target"]),
        (["flowers.csv", "--labels", "y.npy"], ["labels", "leave it out"]),
        (["flowers.csv", "--backend", "abacus"], ["expected one of auto, cupy, numba, numpy", "'abacus'"]),
        (["flowers.csv", "--optimizer", "magic"], ["expected one of sgd, momentum", "'magic'"]),
        (["flowers.csv", "--activation", "relu,swish"], ["activation: expected one name, or one for each of the 1"]),
        (["flowers.csv", "--activation", "swish"], ["activation: expected one of identity, relu", "'swish'"]),
        (["flowers.csv", "--dropout", "1"], ["dropout: expected a number from 0 to below 1"]),
        (["flowers.csv", "--schedule", "steep"], ["schedule: expected one of constant, linear", "'steep'"]),
        (["flowers.csv", "--weight-decay", "0.1"], ["weight_decay: expected optimizer='adamw'"]),
        (["flowers.csv", "--precision", "float8"], ["expected float32 or float64", "'float8'"]),
        (["flowers.csv", "--scale", "big"], ["--scale: expected standard or none", "'big'"]),
        (["flowers.csv", "--hidden", "12;3"], ["--hidden: expected whole numbers", "as 512,512", "'12;3'"]),
        (["flowers.csv", "--hidden", "0"], ["hidden: expected whole numbers from 1"]),
        (
            ["flowers.csv", "--batch-size", "some"],
            ["--batch-size: expected a whole number from 1, or 'full'", "'some'"],
        ),
        (["flowers.csv", "--batch-size", "0"], ["batch_size: expected", "got 0"]),
        (["flowers.csv", "--epochs", "0"], ["epochs: expected a whole number from 1", "got 0"]),
        (["flowers.csv", "--epochs", "many"], ["--epochs", "integer", "see fastmlp train --help"]),
        (["flowers.csv", "--learning-rate", "-1"], ["learning_rate: expected a finite number above 0", "-1"]),
        (["flowers.csv", "--learning-rate", "nan"], ["learning_rate: expected a finite number above 0", "nan"]),
        (["flowers.csv", "--beta", "1"], ["beta: expected a number from 0 to below 1"]),
        (["flowers.csv", "--seed", "-1"], ["seed: expected a whole number from 0"]),
        (["flowers.csv", "--threads", "0"], ["threads: expected a whole number from 1"]),
        (["flowers.csv", "--validation", "1.5"], ["validation: expected a fraction between 0 and 1", "1.5"]),
        (["images.npz", "--scale", "standard"], ["scale='standard'", "uint8"]),
        (["flowers.csv", "--plot", "p.txt"], ["plot p.txt", ".png, .svg, .pdf"]),
        (["flowers.csv", "--report", "nowhere/r.json"], ["nowhere/r.json", "no folder", "create it"]),
        (["flowers.csv", "--report", "."], ["expected the name of an ordinary file, got a folder"]),
        (["flowers.csv", "--report", "model"], ["--report model", "--save is the same", "name another file"]),
        (["flowers.csv", "--report", "./sub/../model"], ["--save is the same"]),
        (["flowers.csv", "--report", "flowers.csv"], ["flowers.csv", "is the same", "name another file"]),
        (["flowers.csv", "--report", "link.json"], ["link.json", "is the same"]),
        (["X.npy", "--labels", "y.npy", "--report", "y.npy"], ["y.npy", "is the same"]),
        (["idx", "--report", "idx/train-labels-idx1-ubyte"], ["idx is the same"]),
    ],
)
def test_train_refuses(monkeypatch, tmp_path, flowers, images, blobs, args, say):
    monkeypatch.chdir(tmp_path)
    Path("model").write_bytes(b"an older model")
    Path("flowers.txt").write_text("text")
    Path("link.json").symlink_to("flowers.csv")
    Path("sub").mkdir()
    Path("idx").mkdir()
    Path("idx/train-labels-idx1-ubyte").write_bytes(b"labels")
    np.save("X.npy", blobs[0])
    np.save("y.npy", blobs[1])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    refuse("train", *args, "--save", "model", say=say)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("option", ["--save", "--report", "--plot"])
def test_unwritable_outputs_are_refused_before_the_data_are_read(monkeypatch, tmp_path, flowers, option):
    monkeypatch.setattr(cli, "read", lambda *args, **options: pytest.fail("read the data first"))
    refuse("train", flowers, option, tmp_path / "nowhere" / "f.png", say=["nowhere", "create it"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_ordinary_file_is_never_replaced(tmp_path, flowers):
    os.mkfifo(tmp_path / "fifo")
    refuse("train", flowers, *SMALL, "--report", tmp_path / "fifo", say=["fifo", "an ordinary file", "name another"])
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize("wrong", ["label", "number"])
def test_a_wrong_test_part_is_refused_before_training(monkeypatch, tmp_path, blobs, wrong):
    X, y = blobs
    x_test, y_test = X[60:].copy(), y[60:].copy()
    if wrong == "label":
        y_test[3] = 7
    else:
        x_test[3, 1] = np.nan
    np.savez(tmp_path / "d.npz", x_train=X[:60], y_train=y[:60], x_test=x_test, y_test=y_test)
    monkeypatch.setattr(fastmlp, "train", lambda *args, **options: pytest.fail("trained first"))
    refuse("train", tmp_path / "d.npz", say=["test y[3] is 7" if wrong == "label" else "test X[3, 1] is nan"])


def test_a_diverged_network_is_not_written(monkeypatch, tmp_path, flowers):
    def diverge(*args, **options):
        raise TrainingDiverged("the loss is nan after epoch 1: lower learning_rate")

    monkeypatch.setattr(fastmlp, "train", diverge)
    (tmp_path / "m").write_bytes(b"an older model")
    refuse("train", flowers, "--save", tmp_path / "m", say=["the loss is nan"])
    assert (tmp_path / "m").read_bytes() == b"an older model"


def test_too_little_memory_is_refused(flowers):
    refuse("train", flowers, *SMALL, "--hidden", 10**12, say=["not enough memory", "hidden units"])


# predict


def rows_of(text):
    return list(csv.reader(io.StringIO(text)))


def test_predictions_are_those_of_the_model(model, flowers):
    head, *lines = rows_of(run("predict", model, flowers).stdout)
    assert head == ["prediction"]
    assert [label for (label,) in lines] == list(fastmlp.load(model).predict(data.read(flowers).X))


def test_probabilities_round_trip(model, flowers):
    head, *lines = rows_of(run("predict", model, flowers, "--probabilities", *NUMPY).stdout)
    assert head == ["prediction", "probability iris", "probability lily", "probability rose"]
    found = np.array([line[1:] for line in lines], np.float32)
    np.testing.assert_array_equal(found, fastmlp.load(model, backend="numpy").predict_proba(data.read(flowers).X))


def test_predictions_into_a_file(tmp_path, model, flowers):
    result = run("predict", model, flowers, "--output", tmp_path / "p.csv")
    assert result.stdout == f"wrote       {tmp_path / 'p.csv'}, 90 rows\n"
    assert (tmp_path / "p.csv").read_text() == run("predict", model, flowers).stdout


def test_rows_to_predict_need_no_labels(tmp_path, model, blobs, flowers):
    write_csv(tmp_path / "bare.csv", blobs[0])
    write_csv(tmp_path / "named.csv", *blobs, target="kind")
    np.save(tmp_path / "bare.npy", data.read(flowers).X)
    expected = run("predict", model, flowers).stdout
    assert run("predict", model, tmp_path / "bare.csv").stdout == expected
    assert run("predict", model, tmp_path / "named.csv", "--target", "kind").stdout == expected
    assert run("predict", model, tmp_path / "bare.npy").stdout == expected


def test_test_rows_are_predicted_where_there_are_some(tmp_path, images):
    run("train", images, *SMALL, "--save", tmp_path / "m")
    assert len(rows_of(run("predict", tmp_path / "m", images).stdout)) == 1 + 20


@pytest.mark.parametrize(
    ("args", "say"),
    [
        (["missing", "flowers.csv"], ["missing"]),
        (["flowers.csv", "flowers.csv"], ["flowers.csv", "expected a model file"]),
        (["model", "missing.csv"], ["missing.csv", "expected a file or folder"]),
        (["model", "images.npz"], ["expected 4 columns, as in training; got 9"]),
        (["model", "flowers.csv", "--output", "flowers.csv"], ["flowers.csv", "is the same"]),
        (["model", "flowers.csv", "--output", "model"], ["model", "is the same"]),
        (["model", "flowers.csv", "--output", "nowhere/p.csv"], ["no folder nowhere"]),
        (["model", "flowers.csv", "--backend", "abacus"], ["'abacus'"]),
        (["model"], ["DATA", "see fastmlp predict --help"]),
    ],
)
def test_predict_refuses(monkeypatch, tmp_path, model, flowers, images, args, say):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run("predict", *args, code=2)
    assert not [words for words in say if words not in result.stderr], result.stderr
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# evaluate


def test_evaluate_measures_the_test_part_as_training_did(tmp_path, images):
    run("train", images, *SMALL, "--save", tmp_path / "m", "--report", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    found = json.loads(run("evaluate", tmp_path / "m", images, *NUMPY, "--json").stdout)
    assert (found["loss"], found["accuracy"]) == (report["test_loss"], report["test_accuracy"])
    assert (found["part"], found["rows"], found["backend"], found["classes"]) == ("test rows", 20, "numpy", [0, 1])
    assert found["data"] == str(images)


def test_evaluate_measures_all_rows_where_there_is_no_test_part(model, flowers, few_digits):
    found = json.loads(run("evaluate", model, flowers, "--json").stdout)
    read = data.read(flowers)
    assert (found["part"], found["rows"]) == ("all rows", 90)
    assert found["accuracy"] == fastmlp.load(model).score(read.X, read.y) > 0.8
    matrix = np.array(found["confusion"])
    predicted = fastmlp.load(model).predict(read.X)
    for i, right in enumerate(found["classes"]):
        for j, given in enumerate(found["classes"]):
            assert matrix[i, j] == np.sum((read.y == right) & (predicted == given))
    _, X, y = cli.measured_part(few_digits)
    assert (len(X), len(y)) == (400, 400)


def test_evaluate_shows_a_line_a_class(model, flowers):
    shown = run("evaluate", model, flowers).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["data", "loss", "accuracy", "class", "iris", "lily", "rose"]


def test_evaluate_shows_no_table_of_many_classes(tmp_path):
    rng = np.random.default_rng(0)
    write_csv(tmp_path / "many.csv", rng.standard_normal((210, 3)), np.arange(210) % 21)
    run("train", tmp_path / "many.csv", *SMALL, "--save", tmp_path / "m")
    assert "class" not in run("evaluate", tmp_path / "m", tmp_path / "many.csv").stdout


def test_evaluate_refuses_an_unseen_label(tmp_path, model, flowers):
    text = flowers.read_text().replace("rose", "tulip")
    (tmp_path / "other.csv").write_text(text)
    refuse(
        "evaluate", model, tmp_path / "other.csv", say=["'tulip'", "expected one of the classes", "iris, lily, rose"]
    )


def test_evaluate_refuses_rows_without_labels(tmp_path, model, blobs):
    write_csv(tmp_path / "bare.csv", blobs[0])
    refuse("evaluate", model, tmp_path / "bare.csv", say=["expected a label column 'label'"])


# info and bench


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
    result = run("bench", "--rows", 300, "--rounds", 1, *(["--json"] if machine else []), code=cli.WRONG)
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

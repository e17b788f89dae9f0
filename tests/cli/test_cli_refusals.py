"""What `fastmlp train` refuses. Nothing is trained or written then."""

import os
from pathlib import Path

import numpy as np
import pytest
from command import SMALL, refuse

import fastmlp
from fastmlp.cli import datasets
from fastmlp.errors import TrainingDiverged


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
    monkeypatch.setattr(datasets, "read", lambda *args, **options: pytest.fail("read the data first"))
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

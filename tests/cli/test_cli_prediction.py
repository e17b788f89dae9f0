"""`fastmlp predict` and `evaluate`: a saved model at work on data."""

import csv
import io
import json

import numpy as np
import pytest
from command import NUMPY, SMALL, refuse, run, write_csv

import fastmlp
from fastmlp import data
from fastmlp.cli import datasets


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


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_csv_of_whole_numbers_is_no_picture_to_a_network_of_numbers(tmp_path, model, command):
    for name, first in (("whole", 1), ("not", 1.0001)):
        (tmp_path / f"{name}.csv").write_text(f"a,b,c,d,label\n{first},0,0,1,iris\n0,2,0,0,lily\n")
    whole, numbers = (run(command, model, tmp_path / f"{name}.csv").stdout for name in ("whole", "not"))
    assert whole.replace("whole.csv", "not.csv") == numbers


def test_test_rows_are_predicted_where_there_are_some(tmp_path, images):
    run("train", images, *SMALL, "--save", tmp_path / "m")
    assert len(rows_of(run("predict", tmp_path / "m", images).stdout)) == 1 + 20


@pytest.mark.parametrize(
    ("args", "say"),
    [
        (["missing", "flowers.csv"], ["missing"]),
        (["flowers.csv", "flowers.csv"], ["flowers.csv", "expected a model file"]),
        (["model", "flowers.csv", "--threads", "-1"], ["threads: expected a whole number from 1", "got -1"]),
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
    _, X, y = datasets.measured_part(few_digits)
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


def rewritten(path, order):
    """The rows of a CSV, in another one beside it with these columns in this order; one that is new is all 1."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    other = path.with_name("other.csv")
    lines = [order, *([row.get(name, "1") for name in order] for row in rows)]
    other.write_text("\n".join(map(",".join, lines)))
    return other


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    ("order", "say"),
    [
        ("b a c d label", ["in another order: column 0 is 'b', not 'a'", "'a', 'b', 'c', 'd'", "reorder them"]),
        ("a b d label c", ["in another order: column 2 is 'd', not 'c'"]),
        ("a b d label", ["got columns without 'c'; add 'c'"]),
        ("a b c d e label", ["got columns with 'e'; leave out 'e'"]),
        ("a b c e label", ["got columns without 'd' and with 'e'; add 'd' and leave out 'e'"]),
    ],
)
def test_other_columns_than_in_training_are_refused(model, flowers, command, order, say):
    refuse(command, model, rewritten(flowers, order.split()), say=["other.csv, with --target label: expected", *say])


def test_a_label_taken_for_a_feature_is_refused(tmp_path, model, blobs):
    write_csv(tmp_path / "other.csv", *blobs, target="kind")
    refuse("predict", model, tmp_path / "other.csv", say=["with --target label", "got columns with 'kind'"])


def test_the_label_may_stand_anywhere(model, flowers):
    expected = {command: run(command, model, flowers).stdout for command in ("predict", "evaluate")}
    other = rewritten(flowers, ["a", "label", "b", "c", "d"])
    for command, output in expected.items():
        assert run(command, model, other).stdout == output.replace("flowers.csv", "other.csv")


def test_without_names_on_either_side_columns_are_taken_as_they_stand(tmp_path, model, flowers):
    read = data.read(flowers)
    np.savez(tmp_path / "bare.npz", X=read.X, y=read.y)
    run("train", tmp_path / "bare.npz", *SMALL, "--save", tmp_path / "bare")
    assert fastmlp.load(tmp_path / "bare").inputs.columns is None
    assert fastmlp.load(model).inputs.columns == ("a", "b", "c", "d")
    other = rewritten(flowers, ["b", "a", "c", "d", "label"])
    turned = fastmlp.load(tmp_path / "bare").predict(data.read(other).X)
    assert [label for (label,) in rows_of(run("predict", tmp_path / "bare", other).stdout)[1:]] == list(turned)
    found = json.loads(run("evaluate", model, tmp_path / "bare.npz", "--json").stdout)
    assert found["accuracy"] == json.loads(run("evaluate", model, flowers, "--json").stdout)["accuracy"]

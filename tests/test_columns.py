"""Names of columns: kept with the model, and rows that have others, or another order of them, refused."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pandas
import polars
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from fastmlp import DataError, load, train, train_many
from fastmlp.inputs import column_names

NAMES = ("height", "width", "age", "weight")
OPTIONS = {"hidden": (5,), "epochs": 2, "batch_size": 16, "progress": False, "backend": "numpy"}
KINDS = {
    "pandas": lambda X, names: pandas.DataFrame(X, columns=list(names)),
    "polars": lambda X, names: polars.DataFrame(X, schema=list(names)),
}


@pytest.fixture(params=KINDS)
def frame(request):
    """What makes a DataFrame of X and names."""
    return KINDS[request.param]


@pytest.fixture
def model(blobs, frame):
    return train(frame(blobs[0], NAMES), blobs[1], **OPTIONS, scale="standard")


def calls(model, X, y):
    """Everything that a model does with rows."""
    return {
        "predict": lambda: model.predict(X),
        "predict_proba": lambda: model.predict_proba(X),
        "forward": lambda: model.forward(X),
        "evaluate": lambda: model.evaluate(X, y),
        "score": lambda: model.score(X, y),
        "backprop": lambda: model.backprop(X, y),
    }


def refused(call, *words):
    with pytest.raises(DataError) as caught:
        call()
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


def test_the_same_names_in_order_predict_as_bare_rows(model, blobs, frame):
    X, y = blobs
    bare = train(X, y, **OPTIONS, scale="standard")
    assert model.inputs.columns == NAMES
    np.testing.assert_array_equal(model.parameters, bare.parameters)
    for name, call in calls(model, frame(X, NAMES), y).items():
        np.testing.assert_array_equal(call(), calls(bare, X, y)[name](), err_msg=name)


# Other columns: their places, or None for a new one; their names; words of the refusal.
OTHERS = {
    "other order": ([0, 2, 1, 3], ("height", "age", "width", "weight"),
                    ["same ones in another order: column 1 is 'age', not 'width'", "reorder them"]),
    "missing": ([0, 1, 2], NAMES[:3], ["got columns without 'weight'; add 'weight'"]),
    "extra": ([0, 1, 2, 3, 0], (*NAMES, "id"), ["got columns with 'id'; leave out 'id'"]),
    "renamed": ([0, 1, 2, 3], ("Height", *NAMES[1:]),
                ["without 'height' and with 'Height'; add 'height' and leave out 'Height'"]),
}  # fmt: skip


@pytest.mark.parametrize(("places", "names", "say"), OTHERS.values(), ids=OTHERS)
def test_other_names_are_refused_and_change_nothing(model, blobs, frame, places, names, say):
    before = model.parameters.copy()
    for call in calls(model, frame(blobs[0][:, places], names), blobs[1]).values():
        refused(call, "X: expected the columns of the training in their order, 'height', 'width', 'age'", *say)
    np.testing.assert_array_equal(model.parameters, before)


def test_names_of_columns_that_stand_twice_are_counted(blobs):
    X, y = blobs
    frame = KINDS["pandas"]
    model = train(frame(X, "aabc"), y, **OPTIONS)
    model.predict(frame(X, "aabc"))
    refused(lambda: model.predict(frame(X[:, :3], "abc")), "got columns without 'a'; add 'a'")
    refused(lambda: model.predict(frame(X, "abac")), "column 1 is 'b', not 'a'")


def test_many_names_are_cut_short():
    X, y = np.eye(30), np.arange(30) % 2
    names = [f"n{i}" for i in range(30)]
    model = train(pandas.DataFrame(X, columns=names), y, **OPTIONS)
    refused(lambda: model.predict(pandas.DataFrame(X[:, :1], columns=["n0"])), "'n9', ... (30 in all)", "(29 in all)")
    refused(lambda: model.predict(pandas.DataFrame(X, columns=names[::-1])), "column 0 is 'n29', not 'n0'")


def test_validation_rows_are_held_to_the_names_too(blobs, frame):
    X, y = blobs
    train(frame(X, NAMES), y, validation=(frame(X, NAMES), y), **OPTIONS)
    other = frame(X, NAMES[::-1])
    refused(lambda: train(frame(X, NAMES), y, validation=(other, y), **OPTIONS), "validation X: expected the columns")


def test_rows_without_names_are_taken_as_they_stand(model, blobs, frame):
    X, _ = blobs
    want = model.predict_proba(frame(X, NAMES))
    np.testing.assert_array_equal(model.predict_proba(X), want)
    np.testing.assert_array_equal(model.predict_proba(X.tolist()), want)
    np.testing.assert_array_equal(model.predict_proba(pandas.DataFrame(X)), want)  # names 0, 1, 2, 3


def test_a_model_without_names_takes_any(blobs, frame):
    X, y = blobs
    for rows in (X, pandas.DataFrame(X), pandas.DataFrame(X, columns=["a", "b", "c", 3])):
        model = train(rows, y, **OPTIONS)
        assert model.inputs.columns is None
        np.testing.assert_array_equal(model.predict_proba(frame(X, NAMES)), model.predict_proba(X))


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["a", "b"], ("a", "b")),
        (np.array(["a", "b"]), ("a", "b")),
        (pandas.Index(["a", "b"]), ("a", "b")),
        (pandas.MultiIndex.from_tuples([("a", "b"), ("a", "c")]), None),
        (["a", None], None),
        ([], None),
        (2, None),
        (None, None),
        (lambda: ["a", "b"], None),
    ],
)
def test_what_counts_as_names(columns, names):
    found = column_names(SimpleNamespace(columns=columns))
    assert found == names
    assert found is None or {type(name) for name in found} == {str}


def test_names_go_with_copies_and_files(model, blobs, frame, tmp_path):
    model.save(tmp_path / "m")
    for again in (load(tmp_path / "m", backend="numpy"), copy.deepcopy(model)):
        assert again.inputs.columns == NAMES
        X = frame(blobs[0], NAMES)
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        refused(lambda again=again: again.predict(frame(blobs[0], NAMES[::-1])), "in another order")


def test_odd_names_survive_a_file(blobs, tmp_path):
    names = ("", " é\n", "\U0001f600", '"\\')
    train(pandas.DataFrame(blobs[0], columns=list(names)), blobs[1], **OPTIONS).save(tmp_path / "m")
    assert load(tmp_path / "m", backend="numpy").inputs.columns == names


def test_a_file_that_knows_no_names_predicts_as_before(model, blobs, frame, tmp_path):
    model.save(tmp_path / "m")
    with safe_open(tmp_path / "m", "numpy") as file:
        header = json.loads(file.metadata()["fastmlp"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    assert header.pop("columns") == list(NAMES)
    save_file(tensors, tmp_path / "old", metadata={"fastmlp": json.dumps(header)})
    old = load(tmp_path / "old", backend="numpy")
    assert old.inputs.columns is None
    np.testing.assert_array_equal(old.predict_proba(frame(blobs[0], NAMES[::-1])), model.predict_proba(blobs[0]))


def test_models_trained_side_by_side_keep_the_names(blobs, frame):
    config = {name: value for name, value in OPTIONS.items() if name != "progress"}
    for model in train_many(frame(blobs[0], NAMES), blobs[1], [config, config | {"seed": 1}], progress=False):
        assert model.inputs.columns == NAMES

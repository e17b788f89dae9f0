"""What enters a network: refusals that name what was expected, what came and what to do; and what is let in."""

import datetime

import numpy as np
import pytest
import scipy.sparse
from tolerance import assert_close

from fastmlp import DataError, inputs, train
from fastmlp.inputs import as_table, learn_inputs
from fastmlp.labels import encode_labels

X4 = np.arange(12.0).reshape(4, 3) / 12
Y4 = [0, 1, 0, 1]
FAST = {"backend": "numpy", "hidden": (3,), "epochs": 1, "progress": False}


def put(value, row=2, column=1, dtype=None):
    """X4 with one entry changed."""
    X = X4.astype(dtype or np.float64)
    X[row, column] = value
    return X


# Refused in training: X, y, words that the message must hold.
REFUSED = {
    "X longer": (X4, [0, 1, 0], ["y: expected 4 labels", "got 3"]),
    "y longer": (X4, [0, 1, 0, 1, 1], ["y: expected 4 labels", "got 5"]),
    "no y": (X4, None, ["y: expected 4 labels"]),
    "y a number": (X4, 3, ["y: expected 4 labels"]),
    "NaN": (put(np.nan), Y4, ["X[2, 1] is nan", "expected finite", "drop the row or the column"]),
    "infinity": (put(np.inf, 3, 0), Y4, ["X[3, 0] is inf", "expected finite"]),
    "minus infinity": (put(-np.inf, 0, 2), Y4, ["X[0, 2] is -inf", "expected finite"]),
    "NaN in float32": (put(np.nan, dtype=np.float32), Y4, ["X[2, 1] is nan"]),
    "too large for float32": (put(1e300), Y4, ["X[2, 1] is inf", "expected finite float32"]),
    "text cell": (put("red", dtype=object), Y4, ["X[2, 1] is 'red'", "expected a number", "encode text"]),
    "object cell": (put({}, dtype=object), Y4, ["X[2, 1] is {}", "expected a number"]),
    "missing cell": (put(None, dtype=object), Y4, ["X[2, 1] is nan", "expected finite"]),
    "text array": (np.array([["1", "a"], ["2", "3"]]), [0, 1], ["X[0, 1] is", "'a'", "expected a number"]),
    "huge integer cell": (put(10**400, dtype=object), Y4, ["X[2, 1]", "expected"]),
    "no rows": (np.empty((0, 3)), [], ["X: expected at least one row", "(0, 3)"]),
    "no columns": (np.empty((4, 0)), Y4, ["X: expected at least one row and one column", "(4, 0)"]),
    "a number": (3.0, [1], ["X: expected a table", "()"]),
    "1-D": (np.arange(4.0), Y4, ["X: expected a table", "(4,)", "X.reshape(len(X), -1)"]),
    "3-D": (np.zeros((4, 2, 2)), Y4, ["X: expected a table", "(4, 2, 2)", "X.reshape(len(X), -1)"]),
    "ragged rows": ([[1.0, 2.0], [3.0], [4.0, 5.0], [6.0, 7.0]], Y4, ["X: expected"]),
    "complex": (X4 + 1j, Y4, ["X: expected numbers", "complex128"]),
    "dates": (X4.astype("datetime64[D]"), Y4, ["X: expected numbers", "datetime64"]),
    "one class": (X4, [7, 7, 7, 7], ["y: expected at least two classes", "7"]),
    "continuous": (X4, [0.5, 1.0, 0.0, 1.0], ["y[0] is 0.5", "class labels", "not continuous"]),
    "NaN label": (X4, [0.0, 1.0, np.nan, 1.0], ["y[2] is nan", "class labels"]),
    "infinite label": (X4, [0.0, 1.0, np.inf, 1.0], ["y[2] is inf"]),
    "None label": (X4, ["a", None, "b", "a"], ["y: expected all labels to be text or all", "'a'", "None"]),
    "mixed labels": (X4, np.array(["a", 1, "b", 2], dtype=object), ["y: expected all labels to be", "'a'", "1"]),
    "mixed list": (X4, ["a", 1, "b", 2], ["y: expected all labels to be", "'a'", "1"]),
    "NaN among text": (X4, ["a", float("nan"), "b", "a"], ["y", "nan"]),
    "huge integer label": (X4, [2**70, 1, 1, 2**70], ["y", "expected"]),
    "date labels": (X4, np.array([1, 2, 1, 2], "datetime64[D]"), ["y: expected integers or text", "datetime64"]),
    "date objects": (X4, [datetime.date(2000, 1, 1)] * 4, ["y: expected all labels to be text or all"]),
    "complex labels": (X4, np.array([1j, 2, 1j, 2]), ["y: expected integers or text", "complex128"]),
    "3-D labels": (X4, np.zeros((4, 2, 2)), ["y: expected one label a row, or one-hot rows"]),
    "two ones": (X4, [[1, 0], [0, 1], [1, 1], [0, 1]], ["y[2] is [1 1]", "one-hot", "a single 1"]),
    "no one": (X4, [[1, 0], [0, 0], [1, 0], [0, 1]], ["y[1] is [0 0]", "one-hot"]),
    "shares": (X4, [[1, 0], [0, 1], [0, 1], [0.5, 0.5]], ["y[3] is [0.5 0.5]", "one-hot"]),
    "minus one": (X4, [[1, 0, 0], [1, 1, -1], [0, 1, 0], [0, 1, 0]], ["y[1] is", "one-hot"]),
    "NaN one-hot": (X4, [[1, 0], [0, 1], [0, np.nan], [0, 1]], ["y[2] is", "one-hot"]),
    "text one-hot": (X4, [["1", "0"]] * 4, ["y: expected numbers in one-hot rows"]),
}


@pytest.mark.parametrize(("X", "y", "words"), REFUSED.values(), ids=REFUSED)
def test_train_refuses(X, y, words):
    called = []
    with pytest.raises(DataError) as caught:
        train(X, y, callbacks=[called.append], **FAST)
    for word in words:
        assert word in str(caught.value)
    assert called == []


@pytest.mark.parametrize(("X", "y", "words"), REFUSED.values(), ids=REFUSED)
def test_train_refuses_the_same_for_validation(X, y, words):
    if words[0].startswith("y: expected at least two classes"):
        return  # a validation set may hold one class
    with pytest.raises(DataError) as caught:
        train(
            X4[:, : np.shape(X)[1]] if isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] else X4,
            Y4,
            validation=(X, y),
            **FAST,
        )
    assert "validation" in str(caught.value)


# Refused by a trained model: what it was trained on, the rows it then gets, words of the message.
def raw_floats():
    return X4, None


def standardised():
    return X4 * 100, "standard"


def bytes_():
    return (X4 * 200).astype(np.uint8), None


LATER = {
    "too few columns": (raw_floats, X4[:, :2], ["X: expected 3 columns, as in training", "got 2"]),
    "too many columns": (raw_floats, np.zeros((2, 4)), ["X: expected 3 columns, as in training", "got 4"]),
    "1-D": (raw_floats, X4[0], ["X: expected a table", "(3,)"]),
    "NaN": (raw_floats, put(np.nan), ["X[2, 1] is nan"]),
    "NaN, standardised": (standardised, put(np.nan), ["X[2, 1] is nan"]),
    "NaN, pixels": (bytes_, put(np.nan), ["X[2, 1] is nan"]),
    "text": (raw_floats, put("red", dtype=object), ["X[2, 1] is 'red'"]),
    "bytes to a standardising net": (
        standardised, (X4 * 200).astype(np.uint8), ["standardises", "got uint8", "X.astype('float32')"],
    ),
    "bytes to a net of raw numbers": (raw_floats, (X4 * 200).astype(np.uint8), ["uint8"]),
    "0 to 255 to a net of pixels": (bytes_, X4 * 200, ["learned from pixels", "float64 up to 183", "divide by 255"]),
    "integers to a net of pixels": (bytes_, (X4 * 200).astype(int), ["from pixels", "int64", "astype('uint8')"]),
    "0 and 1 as integers to a net of pixels": (bytes_, (X4 > 0.5).astype(int), ["learned from pixels", "int64"]),
}  # fmt: skip


@pytest.mark.parametrize("call", ["predict", "predict_proba", "forward", "score", "evaluate", "backprop"])
@pytest.mark.parametrize(("made", "X", "words"), LATER.values(), ids=LATER)
def test_a_model_refuses_rows_and_stays_as_it_was(made, X, words, call):
    trained_on, scale = made()
    model = train(trained_on, Y4, scale=scale, **FAST)
    before = model.parameters.copy()
    arguments = (X, [0] * len(X)) if call in ("score", "evaluate", "backprop") else (X,)
    with pytest.raises(DataError) as caught:
        getattr(model, call)(*arguments)
    for word in words:
        assert word in str(caught.value)
    np.testing.assert_array_equal(model.parameters, before)


UNSEEN = {
    "integer": ([3, 5, 9, 5], [3, 4, 5, 5], ["y[1] is", "4", "one of the classes of the training, 3, 5, 9"]),
    "text": (["a", "b", "a", "b"], ["a", "c", "a", "b"], ["y[1] is", "'c'", "the classes of the training, a, b"]),
    "longer text": (["a", "b", "a", "b"], ["a", "bb", "a", "b"], ["y[1] is", "'bb'"]),
    "above all": ([0, 1, 0, 1], [0, 1, 0, 10], ["y[3] is", "10"]),
    "below all": ([0, 1, 0, 1], [0, 1, 0, -1], ["y[3] is", "-1"]),
    "text for integers": ([0, 1, 0, 1], ["0", "1", "0", "1"], ["y: expected labels like", "0", "'0'"]),
    "integers for text": (["0", "1", "0", "1"], [0, 1, 0, 1], ["y: expected labels like", "'0'"]),
    "too short": ([0, 1, 0, 1], [0, 1], ["y: expected 4 labels", "got 2"]),
    "one-hot with too many columns": ([0, 1, 0, 1], np.eye(3)[[0, 1, 0, 1]], ["y", "2", "3"]),
    "one-hot with too few columns": ([0, 1, 2, 1], np.eye(2)[[0, 1, 0, 1]], ["y", "3", "2"]),
}


@pytest.mark.parametrize("call", ["score", "evaluate", "backprop"])
@pytest.mark.parametrize(("known", "given", "words"), UNSEEN.values(), ids=UNSEEN)
def test_a_model_refuses_labels_and_stays_as_it_was(known, given, words, call):
    model = train(X4, known, **FAST)
    before = model.parameters.copy()
    with pytest.raises(DataError) as caught:
        getattr(model, call)(X4, given)
    for word in words:
        assert word in str(caught.value)
    np.testing.assert_array_equal(model.parameters, before)


def test_an_unseen_label_in_validation_is_refused_and_named():
    with pytest.raises(DataError, match=r"validation y\[1\] is .*7.*one of the classes of the training, 0, 1"):
        train(X4, Y4, validation=(X4, [0, 7, 0, 1]), **FAST)


def test_many_classes_are_listed_shortly():
    model = train(np.tile(X4, (5, 1)), np.arange(20), **FAST)
    with pytest.raises(DataError, match=r"0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.;"):
        model.score(X4, [0, 1, 2, 99])


def test_standardising_bytes_is_refused():
    with pytest.raises(DataError, match=r"scale='standard' is for floating-point columns; .* X.astype\('float32'\)"):
        train((X4 * 200).astype(np.uint8), Y4, scale="standard", **FAST)


def test_a_nan_beyond_the_first_block_is_found_at_its_place(monkeypatch):
    monkeypatch.setattr(inputs, "BLOCK", 6)  # two rows at a time
    with pytest.raises(DataError, match=r"X\[3, 2\] is nan"):
        train(put(np.nan, 3, 2), Y4, **FAST)


# What is let in.


@pytest.mark.parametrize(
    ("given", "classes"),
    [
        ([3, 5, 3, 9], [3, 5, 9]),
        (["b", "a", "b", "c"], ["a", "b", "c"]),
        ([True, False, True, True], [False, True]),
        ([1.0, 2.0, 1.0, 4.0], [1.0, 2.0, 4.0]),
        (np.array([-1, 1, -1, 1], np.int8), [-1, 1]),
        (np.array([200, 100, 200, 100], np.uint8), [100, 200]),
        (np.array(["x", "yy", "x", "yy"], dtype=object), ["x", "yy"]),
        (np.array([4, 2, 4, 2], dtype=object), [2, 4]),
        (np.array([[4], [2], [4], [2]]), [2, 4]),
    ],
    ids=["ints", "text", "bools", "whole floats", "int8", "uint8", "object text", "object ints", "column"],
)
def test_labels_become_indices_of_sorted_classes(given, classes):
    codes, found = encode_labels(given, 4)
    assert found.tolist() == classes
    assert codes.dtype == np.int32
    assert found[codes].tolist() == np.asarray(given).ravel().tolist()
    again, _ = encode_labels(given, 4, found)
    np.testing.assert_array_equal(again, codes)


@pytest.mark.parametrize("dtype", [int, float, bool, np.uint8])
def test_one_hot_rows_become_indices(dtype):
    codes, classes = encode_labels(np.eye(5)[[3, 0, 3, 1]].astype(dtype), 4)
    assert codes.tolist() == [3, 0, 3, 1]
    assert classes.tolist() == [0, 1, 2, 3, 4]  # also those that no row has


@pytest.mark.parametrize("known", [[1, 2, 3], ["a", "b", "c"], [True, False]], ids=["from 1", "text", "bools"])
def test_one_hot_rows_for_known_classes_count_columns_not_labels(known):
    # Column o of a prediction is classes[o]; column o of one-hot rows must be too.
    _, classes = encode_labels(known, len(known))
    o = len(classes) - 1
    codes, _ = encode_labels(np.eye(len(classes), dtype=int)[[o, o]], 2, classes)
    assert codes.tolist() == [o, o]
    codes, _ = encode_labels(np.eye(len(classes), dtype=int)[[1, 1]], 2, classes)
    assert codes.tolist() == [1, 1]


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int64", "int8", "uint16", "bool", ">f4", "object"])
def test_numbers_of_every_type_become_the_networks_type(dtype, kind):
    X = np.array([[0, 1, 1], [1, 0, 1]]).astype(kind)
    out = learn_inputs(as_table(X), None).prepare(X, dtype)
    assert out.dtype == dtype
    assert out.dtype.isnative
    assert out.tolist() == [[0, 1, 1], [1, 0, 1]]


def test_text_that_holds_numbers_is_read():
    assert as_table(np.array([["1", "2.5"], ["-3", "4e2"]])).tolist() == [[1, 2.5], [-3, 400]]


def test_a_table_of_another_library_is_read():
    class Frame:
        def __array__(self, dtype=None, copy=None):
            return X4

    np.testing.assert_array_equal(as_table(Frame()), X4)


def test_nothing_is_copied_where_nothing_changes(dtype):
    X = X4.astype(dtype)
    assert learn_inputs(X, None).prepare(X, dtype) is X
    bytes_ = (X4 * 200).astype(np.uint8)
    assert learn_inputs(bytes_, None).prepare(bytes_, dtype) is bytes_
    assert learn_inputs(bytes_, None).pixels


LAYOUTS = {
    "fortran": np.asfortranarray,
    "transposed": lambda X: np.ascontiguousarray(X.T).T,
    "every other column": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "list": lambda X: X.tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_numbers_reach_the_backend_row_by_row(dtype, layout):
    X = layout(X4.astype(dtype))
    assert learn_inputs(as_table(X), None).prepare(X, dtype).flags.c_contiguous


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_any_layout_gives_the_same_bits(backend, blobs, dtype, layout):
    X, y = blobs[0].astype(dtype), blobs[1]
    options = {"backend": backend.name, "hidden": (5,), "epochs": 2, "progress": False, "precision": dtype.name}
    plain, other = train(X, y, validation=(X, y), **options), train(layout(X), y, validation=(layout(X), y), **options)
    np.testing.assert_array_equal(other.parameters, plain.parameters)
    assert other.history.train_loss == plain.history.train_loss
    assert other.history.validation_loss == plain.history.validation_loss
    np.testing.assert_array_equal(other.predict_proba(layout(X)), plain.predict_proba(X))


@pytest.mark.parametrize("layout", ["fortran", "transposed", "every other column", "reversed"])
def test_bytes_of_any_layout_give_the_same_bits(backend, pixels, layout):
    X, y = pixels
    other = LAYOUTS[layout](X)
    options = {"backend": backend.name, "hidden": (5,), "epochs": 2, "progress": False}
    for batch in (16, "full"):
        models = [train(data, y, batch_size=batch, **options) for data in (X, other)]
        np.testing.assert_array_equal(models[0].parameters, models[1].parameters)
        np.testing.assert_array_equal(models[0].predict_proba(X), models[1].predict_proba(other))


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_rows_may_be_read_only_or_lie_in_a_file(backend, tmp_path, kind):
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 2, (40, 5)).astype(kind), np.arange(40) % 2
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    frozen = X.copy()
    frozen.flags.writeable = False
    options = {"backend": backend.name, "hidden": (5,), "epochs": 2, "batch_size": 7, "progress": False}
    want = train(X, y, **options)
    for data in (mapped, frozen):
        model = train(data, y, validation=(data, y), **options)
        np.testing.assert_array_equal(model.parameters, want.parameters)
        np.testing.assert_array_equal(model.predict_proba(data), want.predict_proba(X))


def test_masked_entries_are_not_read_as_numbers(backend):
    masked = np.ma.masked_array(X4, X4 > 0.8)
    with pytest.raises(DataError, match="mask"):
        train(masked, Y4, **{**FAST, "backend": backend.name})


def test_a_sparse_matrix_is_told_where_it_fits():
    with pytest.raises(DataError, match=r"got a sparse matrix; pass X.toarray\(\), or use MLPClassifier"):
        train(scipy.sparse.csr_matrix(X4), Y4, **FAST)


# Standardising.


@pytest.mark.parametrize("block", [3, 2**22])
def test_standardising_learns_mean_and_deviation(monkeypatch, dtype, block):
    monkeypatch.setattr(inputs, "BLOCK", block)
    X = np.random.default_rng(0).normal([1e3, -2, 0], [1, 5, 1e-3], (50, 3))
    learned = learn_inputs(X, "standard")
    np.testing.assert_allclose(learned.mean, X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(learned.deviation, X.std(axis=0), rtol=1e-9)
    assert learned.mean.dtype == learned.deviation.dtype == np.float64
    out = learned.prepare(X, dtype)
    assert out.dtype == dtype
    assert_close(out, (X - X.mean(axis=0)) / X.std(axis=0), dtype)


def test_standardising_learns_from_the_rows_named_only():
    index = np.array([0, 2])
    learned = learn_inputs(X4, "standard", index)
    np.testing.assert_allclose(learned.mean, X4[index].mean(axis=0))
    np.testing.assert_allclose(learned.deviation, X4[index].std(axis=0))


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, 1e6 / 3, -1e-9])
def test_a_constant_column_is_only_centred(value):
    # 0.1 summed a thousand times is not 100: what rounding leaves must not become a deviation to divide by.
    X = np.full((1000, 2), value)
    X[:, 1] = np.arange(1000)
    learned = learn_inputs(X, "standard")
    assert learned.deviation[0] == 1
    shifted = X + np.array([0.5, 0])
    np.testing.assert_allclose(learned.prepare(shifted, np.dtype("float64"))[:, 0], 0.5, rtol=1e-6)


def test_standardising_leaves_the_rows_given_as_they_were():
    X = X4.copy()
    learn_inputs(X, "standard").prepare(X, np.dtype("float32"))
    np.testing.assert_array_equal(X, X4)


def test_standardising_huge_numbers_works_or_is_refused():
    X = X4 * 1e300  # the squares overflow
    try:
        out = learn_inputs(X, "standard").prepare(X, np.dtype("float32"))
    except DataError:
        return
    np.testing.assert_allclose(out.std(axis=0), 1, rtol=1e-5)

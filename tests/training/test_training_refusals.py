"""The options that train() refuses, before any work."""

import math

import numpy as np
import pytest
from quiet import QUIET

from fastmlp import DataError, OptionError, train

OPTIONS = [
    ("backend", "torch", "backend: expected one of auto, cupy, numba, numpy; got 'torch'"),
    ("hidden", 10**20, "hidden: expected layers of fewer than 1,099,511,627,776 units; got"),
    ("callbacks", [3], "callbacks: expected a sequence of functions; got [3]"),
    ("callbacks", print, "callbacks: expected a sequence of functions; got"),
    (
        "optimizer",
        "lbfgs",
        "optimizer: expected one of sgd, momentum, nesterov, adam, adamw, heavy_ball, heavy_ball_nesterov; got 'lbfgs'",
    ),
    ("optimizer", None, "optimizer: expected one of"),
    ("optimizer", ["adam"], "optimizer: expected one of"),
    ("precision", "float8", "precision: expected float32 or float64 or tf32 or float16 or bfloat16; got 'float8'"),
    ("precision", "float16", "backend cannot compute in float16: it computes in float32 or float64"),
    ("precision", np.float32, "precision: expected float32 or float64 or tf32"),
    ("scale", "minmax", "scale: expected None or 'standard'; got 'minmax'"),
    ("scale", True, "scale: expected None or 'standard'; got True"),
    ("epochs", 0, "epochs: expected a whole number from 1; got 0"),
    ("epochs", 2.5, "epochs: expected a whole number from 1; got 2.5"),
    ("epochs", True, "epochs: expected a whole number from 1; got True"),
    ("epochs", "3", "epochs: expected a whole number from 1; got '3'"),
    ("batch_size", 0, "batch_size: expected a whole number from 1, or 'full'; got 0"),
    ("batch_size", -1, "batch_size: expected a whole number from 1, or 'full'; got -1"),
    ("batch_size", "half", "batch_size: expected a whole number from 1, or 'full'; got 'half'"),
    ("batch_size", True, "batch_size: expected a whole number from 1, or 'full'; got True"),
    ("batch_size", 16.0, "batch_size: expected a whole number from 1, or 'full'; got 16.0"),
    ("learning_rate", 0, "learning_rate: expected a finite number above 0; got 0"),
    ("learning_rate", -1, "learning_rate: expected a finite number above 0; got -1"),
    ("learning_rate", 10**400, "learning_rate: expected a finite number above 0; got 1000"),
    ("learning_rate", np.complex64(1), "learning_rate: expected a finite number above 0; got"),
    ("learning_rate", math.nan, "learning_rate: expected a finite number above 0; got nan"),
    ("learning_rate", math.inf, "learning_rate: expected a finite number above 0; got inf"),
    ("learning_rate", "0.1", "learning_rate: expected a finite number above 0; got '0.1'"),
    ("learning_rate", True, "learning_rate: expected a finite number above 0; got True"),
    ("beta", 1, "beta: expected a number from 0 to below 1; got 1"),
    ("beta", -0.1, "beta: expected a number from 0 to below 1; got -0.1"),
    ("beta", math.nan, "beta: expected a number from 0 to below 1; got nan"),
    ("beta", "0.9", "beta: expected a number from 0 to below 1; got '0.9'"),
    ("activation", "swish", "activation: expected one of identity, relu, logistic, tanh, leaky_relu, elu, gelu, silu"),
    ("activation", ("relu", "tanh"), "activation: expected one name, or one for each of the 1 hidden layers; got ('r"),
    ("activation", [3], "activation: expected one of identity"),
    ("activation", None, "activation: expected one name, or one for each of the 1 hidden layers; got None"),
    ("dropout", 1, "dropout: expected a number from 0 to below 1; got 1"),
    ("dropout", -0.1, "dropout: expected a number from 0 to below 1; got -0.1"),
    ("dropout", "half", "dropout: expected a number from 0 to below 1; got 'half'"),
    ("l2", -1, "l2: expected a finite number from 0; got -1"),
    ("l2", math.inf, "l2: expected a finite number from 0; got inf"),
    ("weight_decay", 0.1, "weight_decay: expected optimizer='adamw', got 'momentum'; use adamw, or l2"),
    ("weight_decay", -1, "weight_decay: expected a finite number from 0, or None; got -1"),
    ("clip", 0, "clip: expected a finite number above 0, or None; got 0"),
    ("clip", math.nan, "clip: expected a finite number above 0, or None; got nan"),
    ("schedule", "step", "schedule: expected one of constant, linear, cosine, one_cycle; got 'step'"),
    ("schedule", None, "schedule: expected one of constant, linear, cosine, one_cycle; got None"),
    ("warmup", -1, "warmup: expected a number of epochs from 0; got -1"),
    ("warmup", True, "warmup: expected a number of epochs from 0; got True"),
    ("warmup", 3, "warmup: expected fewer epochs than the 3 of the training; got 3"),
    ("label_smoothing", 1, "label_smoothing: expected a number from 0 to below 1; got 1"),
    ("label_smoothing", None, "label_smoothing: expected a number from 0 to below 1; got None"),
    ("hidden", (0,), "hidden: expected whole numbers from 1, one a hidden layer; got (0,)"),
    ("hidden", (-3,), "hidden: expected whole numbers from 1, one a hidden layer; got (-3,)"),
    ("hidden", ("a",), "hidden: expected whole numbers from 1, one a hidden layer; got ('a',)"),
    ("hidden", (8, 2.5), "hidden: expected whole numbers from 1, one a hidden layer; got (8, 2.5)"),
    ("hidden", np.array(2.5), "hidden: expected whole numbers from 1, one a hidden layer; got (2.5,)"),
    ("hidden", "160", "hidden: expected whole numbers from 1"),
    ("hidden", 0, "hidden: expected whole numbers from 1"),
    ("hidden", True, "hidden: expected whole numbers from 1"),
    ("hidden", None, "hidden: expected whole numbers from 1"),
    ("hidden", 2.5, "hidden: expected whole numbers from 1"),
    ("seed", -1, "seed: expected a whole number from 0 to below 2**32; got -1"),
    ("seed", 2**32, "seed: expected a whole number from 0 to below 2**32; got 4294967296"),
    ("seed", None, "seed: expected a whole number from 0 to below 2**32; got None"),
    ("threads", 0, "threads: expected a whole number from 1, or None; got 0"),
    ("threads", "all", "threads: expected a whole number from 1, or None; got 'all'"),
    ("validation", 0, "validation: expected a fraction between 0 and 1, or a pair (X, y); got 0"),
    ("validation", 1, "validation: expected a fraction between 0 and 1, or a pair (X, y); got 1"),
    ("validation", 1.5, "validation: expected a fraction between 0 and 1, or a pair (X, y); got 1.5"),
    ("validation", True, "validation: expected a fraction between 0 and 1, or a pair (X, y); got True"),
    ("validation", math.nan, "validation: expected a fraction between 0 and 1, or a pair (X, y); got nan"),
    ("validation", "x", "validation: expected a fraction between 0 and 1, or a pair (X, y); got x"),
    ("validation", (np.zeros((3, 4)),), "validation: expected a fraction between 0 and 1, or a pair (X, y); got tuple"),
    ("validation", np.zeros((2, 4)), "validation: expected a fraction between 0 and 1, or a pair (X, y); got ndarray"),
]


@pytest.mark.parametrize(("name", "value", "message"), OPTIONS, ids=lambda value: str(value)[:20])
def test_an_impossible_option_is_refused_before_training(blobs, name, value, message):
    called = []
    with pytest.raises(OptionError) as caught:
        train(*blobs, **{**QUIET, "backend": "numpy", "callbacks": [called.append], name: value})
    assert message in str(caught.value)
    assert called == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": (), "dropout": 0.5}, "dropout: expected hidden units to leave out, got none; set hidden"),
        ({"schedule": "one_cycle", "warmup": 1}, "warmup: expected 0, since schedule='one_cycle' has a warm-up"),
        ({"hidden": (), "activation": ("relu",)}, "one for each of the 0 hidden layers"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(blobs, options, message):
    with pytest.raises(OptionError) as caught:
        train(*blobs, **{**QUIET, "backend": "numpy", **options})
    assert message in str(caught.value)


def test_labels_without_rows_are_refused():
    with pytest.raises(DataError, match=r"y: expected no labels without X; pass both, or neither"):
        train(None, [0, 1])


def test_options_are_refused_before_the_data_are_read():
    with pytest.raises(OptionError, match="epochs"):
        train("no data at all", None, epochs=0)

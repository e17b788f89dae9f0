"""The lists of a training, as Python, JSON, CSV and a picture."""

import csv
import io
import json

import pytest

from fastmlp import History, OptionError


def full():
    history = History()
    history.append((2.0, 0.25), (2.5, 0.125), 0.5)
    history.append((1.0, 0.75), (1.5, 0.5), 0.25)
    return history


def without_validation():
    history = History()
    history.append((2.0, 0.25), None, 0.5)
    return history


def test_append_fills_every_list():
    history = full()
    assert len(history) == 2
    assert history.train_loss == [2.0, 1.0]
    assert history.train_accuracy == [0.25, 0.75]
    assert history.validation_loss == [2.5, 1.5]
    assert history.validation_accuracy == [0.125, 0.5]
    assert history.seconds == [0.5, 0.25]


def test_two_histories_share_no_list():
    full()
    assert len(History()) == 0


def test_last_is_the_newest_epoch():
    assert full().last() == {
        "train_loss": 1.0, "train_accuracy": 0.75, "validation_loss": 1.5, "validation_accuracy": 0.5, "seconds": 0.25,
    }  # fmt: skip
    assert without_validation().last() == {"train_loss": 2.0, "train_accuracy": 0.25, "seconds": 0.5}
    assert History().last() == {}


@pytest.mark.parametrize("make", [full, without_validation, History])
def test_json_holds_the_whole_history(tmp_path, make):
    text = make().to_json(tmp_path / "h.json")
    assert History(**json.loads(text)) == make()
    assert (tmp_path / "h.json").read_text() == text


def test_csv_counts_epochs_from_one(tmp_path):
    text = full().to_csv(tmp_path / "h.csv")
    assert list(csv.reader(io.StringIO(text))) == [
        ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds"],
        ["1", "2.0", "0.25", "2.5", "0.125", "0.5"],
        ["2", "1.0", "0.75", "1.5", "0.5", "0.25"],
    ]
    assert (tmp_path / "h.csv").read_text() == text


def test_csv_without_validation_has_no_empty_columns():
    assert without_validation().to_csv() == "epoch,train_loss,train_accuracy,seconds\n1,2.0,0.25,0.5\n"


def test_what_some_epochs_did_not_measure_is_nan():
    history = without_validation()
    history.append((1.0,), (1.5, 0.5, 0.75), None)
    history.append((0.5, 0.875), None, 0.5)
    assert history.to_csv() == (
        "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,validation_score,seconds\n"
        "1,2.0,0.25,nan,nan,nan,0.5\n2,1.0,nan,1.5,0.5,0.75,nan\n3,0.5,0.875,nan,nan,nan,0.5\n"
    )


def test_an_empty_history_can_be_written():
    assert History().to_csv() == "epoch\n"


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plot_draws_and_writes(tmp_path, ending):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"h.{ending}"
    figure = full().plot(path)
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert list(figure.axes[0].lines[0].get_ydata()) == [2.0, 1.0]
    assert path.stat().st_size > 1000


def test_plot_without_validation_has_one_curve():
    pytest.importorskip("matplotlib")
    assert [len(axes.lines) for axes in without_validation().plot().axes] == [1, 1]


def test_plot_refuses_an_ending_it_cannot_write(tmp_path):
    with pytest.raises(OptionError, match=r"expected a name ending in \.png, \.svg, \.pdf"):
        full().plot(tmp_path / "h.txt")

"""What train() tells: history, report, progress."""

import numpy as np
import pytest

from fastmlp import train
from fastmlp.optimizers import OPTIMIZERS


@pytest.mark.parametrize("validated", [False, True])
def test_history_has_an_entry_an_epoch(fit, blobs, validated):
    history = fit(epochs=4, validation=blobs if validated else None).history
    assert len(history) == len(history.train_loss) == len(history.train_accuracy) == len(history.seconds) == 4
    assert len(history.validation_loss) == len(history.validation_accuracy) == (4 if validated else 0)
    lists = (history.train_loss, history.train_accuracy, history.validation_loss, history.validation_accuracy)
    assert {type(value) for values in lists for value in values} == {float}
    assert all(seconds > 0 for seconds in history.seconds)


def test_the_report_says_what_ran(fit, backend):
    report = fit(seed=9, optimizer="nesterov", beta=0.7, learning_rate=0.25, threads=1).report
    assert (report.backend, report.requested, report.reason) == (backend.name, backend.name, "asked for")
    assert (report.seed, report.optimizer, report.beta, report.learning_rate) == (9, "nesterov", 0.7, 0.25)
    assert (report.batch_size, report.rows, report.validation_rows, report.epochs) == (16, 90, 0, 3)
    assert report.precision == "float32"
    assert report.stopped == "all epochs done"
    assert report.threads in (1, None)
    assert report.blas
    assert report.device is None
    assert report.versions["numpy"] == np.__version__
    assert {"fastmlp", "python"} <= set(report.versions)


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_the_default_rate_is_the_optimizers_and_what_the_docstring_says(fit, rule):
    rate = fit(optimizer=rule, epochs=1).report.learning_rate
    assert rate == OPTIMIZERS[rule].learning_rate
    promised = train.__doc__.partition("None takes the optimizer's own:")[2].partition(".\n")[0]
    adams, heavy, others = promised.replace(", and", ",").split(", ")
    assert f"{rate:g} for" in (adams if rule.startswith("adam") else heavy if rule.startswith("heavy") else others)


def test_progress_is_shown_on_standard_error_where_asked_for(fit, capsys):
    fit(progress=True, epochs=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err


def test_nothing_is_shown_in_a_pipe(fit, capsys):
    fit(progress=None)
    assert capsys.readouterr() == ("", "")

"""What is no dataset at all, and options that belong to another kind."""

import pytest
from written import X, npy, refusal, write


@pytest.mark.parametrize("name", ["none.csv", "none.npz", "none.npy", "none"])
def test_missing_sources_are_refused(tmp_path, name):
    refusal(name, "found none", source=str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.parquet", "a.gz", "a"])
def test_unknown_kinds_are_refused(tmp_path, name):
    refusal(".csv, .csv.gz, .npz, .npy", "folder", source=write(tmp_path / name, "1"))


def test_options_of_another_kind_of_source_are_refused(tmp_path):
    for source in (None, "mnist", tmp_path, npy(tmp_path, "x.npy", X)):
        refusal("target='a'", ".csv", source=source, target="a")
    for source in (None, "mnist", tmp_path, write(tmp_path / "a.csv", "a,label\n1,2\n")):
        refusal("labels='y.npy'", ".npy", source=source, labels="y.npy")

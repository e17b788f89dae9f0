"""train(), ready to be called."""

import pytest
from quiet import QUIET

from fastmlp import train


@pytest.fixture
def fit(backend, blobs):
    """train() on the blobs, with few units and epochs unless told otherwise."""

    def call(X=blobs[0], y=blobs[1], **options):
        return train(X, y, **{**QUIET, "backend": backend.name, **options})

    return call

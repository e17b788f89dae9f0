"""The operations of the CuPy backend on a real GPU."""

from __future__ import annotations

import pytest
from test_cupy_ops import OpTests

from fastmlp.backends import load


@pytest.mark.gpu
class TestGpu(OpTests):
    """The same tests as under emulation."""

    @pytest.fixture
    def backend(self):
        return load("cupy")

    def test_describe_names_card_and_libraries(self):
        facts = self.backend.describe()
        assert "compute capability" in facts["device"]
        assert facts["blas"].startswith("cuBLAS ")
        assert facts["versions"].keys() == {"numpy", "cupy", "cuda runtime"}

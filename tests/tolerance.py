"""How far a backend may be from the float64 oracle: the one table of the tests."""

import numpy as np

# What is compared: (relative, absolute) by floating type.
TOLERANCE = {
    "op": {"float32": (2e-5, 2e-6), "float64": (1e-11, 1e-12)},  # one operation or one step on numbers of order 1
    "run": {"float32": (1e-4, 1e-5), "float64": (1e-9, 1e-10)},  # a loss or a weight after tens of steps
    # A step of such products: what is rounded may lie on the other side of a half, and is then 2**-8 away.
    "rounded step": {"float32": (2e-3, 2e-4)},
    "half": {"float32": (1e-3, 0.0)},  # one step on float16 operands with float32 sums, by the norm of the whole array
    "gradient": {"float64": (1e-6, 0.0)},  # against central differences
}


def tolerance(kind, dtype):
    """(relative, absolute) for `kind` of comparison in `dtype`."""
    return TOLERANCE[kind][np.dtype(dtype).name]


def assert_close(got, want, dtype, kind="op"):
    """`got`, computed in `dtype`, is what the oracle says."""
    relative, absolute = tolerance(kind, dtype)
    np.testing.assert_allclose(got, want, rtol=relative, atol=absolute)

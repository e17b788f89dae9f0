"""Names of the backends that the tests run on."""

CPU_BACKENDS = ("numpy", "numba")

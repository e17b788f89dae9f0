"""JAX on the GPU: `peers.with_jax`, where JAX sees one. It has no events to time by."""

from __future__ import annotations

import jax

from benchmarks.peers.with_jax import VERSIONS, trainers

__all__ = ["VERSIONS", "trainers"]

if jax.default_backend() != "gpu":
    raise ImportError(f"JAX sees no GPU, only {jax.default_backend()}; install jax[cuda12] or jax[cuda13]")

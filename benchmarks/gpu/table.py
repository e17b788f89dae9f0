"""The rows of the table on a GPU."""

from __future__ import annotations

from benchmarks.peers.jobs import ROWS, Job, Source, images_name
from benchmarks.peers.table import Entry, Row

LIBRARIES = {
    "cupy": "benchmarks.gpu.ours",
    "naive": "benchmarks.gpu.naive",
    "torch": "benchmarks.gpu.with_torch",
    "jax": "benchmarks.gpu.with_jax",
}
STEPS = 20  # full batches in one reading of the clock
RECIPE = ("float32", "tf32", "float16", "bfloat16")  # whose accuracy is compared


def same(job: Job) -> tuple[Entry, ...]:
    """The job at tf32 in every library; naive CuPy has float32."""
    return (Entry(job._replace(precision="tf32"), "", tuple(LIBRARIES)),)


def sixteen_bits(job: Job) -> tuple[Entry, ...]:
    """The job on 16-bit operands: float16 in ours, which needs no scaled loss for it, bfloat16 in all."""
    return (
        Entry(job._replace(precision="float16"), "", ("cupy",)),
        Entry(job._replace(precision="bfloat16"), "", ("cupy", "torch", "jax")),
    )


def rows(most: int | None) -> list[Row]:
    """All rows, with `most` rows of data at most."""

    def job(*hidden: int, batch: int, rate: float) -> Job:
        return Job(Source("images", min(most or ROWS, ROWS)), hidden, batch, "momentum", rate, 1)

    full = job(160, batch=ROWS, rate=0.2)
    small, large = job(160, batch=128, rate=0.2), job(160, batch=1024, rate=0.2)
    deep, name = job(512, 512, batch=256, rate=0.2), images_name()
    return [
        Row("batch-128-16", f"epoch, batch 128, {name}, 784-160-10, 16 bits", "epoch", sixteen_bits(small)),
        Row("batch-1024-16", f"epoch, batch 1024, {name}, 784-160-10, 16 bits", "epoch", sixteen_bits(large)),
        Row("deep-16", f"epoch, batch 256, {name}, 784-512-512-10, 16 bits", "epoch", sixteen_bits(deep)),
        Row("full", f"full batch, {name}, 784-160-10, tf32", "epoch", same(full), STEPS),
        Row("full-16", f"full batch, {name}, 784-160-10, 16 bits", "epoch", sixteen_bits(full), STEPS),
        Row("batch-128", f"epoch, batch 128, {name}, 784-160-10, tf32", "epoch", same(small)),
        Row("batch-1024", f"epoch, batch 1024, {name}, 784-160-10, tf32", "epoch", same(large)),
    ]

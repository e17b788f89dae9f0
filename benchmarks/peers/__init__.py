"""fastmlp beside JAX, torch and scikit-learn: the same data, start, rule and precision, checked before it is timed.

    python -m benchmarks.peers [--rows N] [--rounds R] [--threads T] [--only NAME]... [--record]

One subject a module: `jobs` says what is trained, `ours` and `with_*` train it, `check` says what must come out,
`table` lists what is compared, `rounds` times it, `peak` measures what the machine can do, `record` keeps it all.
"""

"""What `python -m benchmarks.gpu_peers` compares: fastmlp's rungs, naive CuPy, torch and JAX on one GPU."""

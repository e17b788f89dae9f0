"""Compute kernels: Numba for the CPU, CUDA C++ for the GPU. They know nothing of training."""

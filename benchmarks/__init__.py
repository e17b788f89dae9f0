"""Benchmarks: suites for pytest-benchmark, and programs that run peers side by side."""

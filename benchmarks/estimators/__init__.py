"""fastmlp's MLPClassifier and MLPRegressor beside scikit-learn's: the same program, one import changed.

    python -m benchmarks.estimators [--rows N] [--rounds R] [--threads T] [--only ROW]... [--record]

`cases` says what is fitted, `work` fits it in a process for each library, `check` compares what came out.
"""

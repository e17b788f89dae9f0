"""Options of a training that is small and says nothing."""

QUIET = {"progress": False, "hidden": (8,), "epochs": 3, "batch_size": 16}

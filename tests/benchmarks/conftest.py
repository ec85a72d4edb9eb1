"""Nothing here is a test: the scripts are run by hand or by make, some of them by a Python without snnzoo."""

collect_ignore_glob = ["*.py"]

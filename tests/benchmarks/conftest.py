"""Keep pytest out of this folder: its scripts run by hand or by make, some under a Python without snnzoo."""

collect_ignore_glob = ["*.py"]

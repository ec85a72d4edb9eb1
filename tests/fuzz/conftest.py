"""Nothing here is a test: `make fuzz` runs it, and tests/hostile takes its valid files and its limits."""

collect_ignore_glob = ["*.py"]

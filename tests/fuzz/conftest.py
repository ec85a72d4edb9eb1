"""Keep pytest out of this folder: `make fuzz` runs it, and tests/hostile uses its valid files and limits."""

collect_ignore_glob = ["*.py"]

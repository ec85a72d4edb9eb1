"""One architecture and its training recipe each, as YAML."""

"""File formats of models: each is read and written by modules of its own."""

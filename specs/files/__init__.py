"""Reading and writing files safely: downloads, digests, limits, files that appear whole or not at all."""

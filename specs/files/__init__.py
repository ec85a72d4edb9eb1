"""Safe reading and writing of files: downloads, digests, limits, and files that appear whole or not at all."""

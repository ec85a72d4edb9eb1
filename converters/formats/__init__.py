"""File formats of models; each format has its own modules for reading and writing."""

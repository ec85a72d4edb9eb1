"""HDF5 files, read by pyfive."""

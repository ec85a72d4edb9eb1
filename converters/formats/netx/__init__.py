"""netx HDF5 (`.net`), the network description that Lava's netx loads: read, written, compared."""

"""Read, write and compare netx files (HDF5, `.net`), the network description that Lava's netx loads."""

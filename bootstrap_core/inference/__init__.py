"""Exact inference in integers, with the arithmetic of the hardware."""

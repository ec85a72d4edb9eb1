"""Exact inference in integers, as the hardware computes."""

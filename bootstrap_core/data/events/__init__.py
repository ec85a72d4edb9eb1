"""Recordings of event cameras: readers, bins, and a simulated camera."""

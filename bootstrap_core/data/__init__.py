"""Data files that ship in the wheel."""

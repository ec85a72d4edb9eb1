"""Datasets: named ones, a user's own images, and the sample that ships in the wheel."""

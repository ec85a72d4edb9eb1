"""Trained weights, one model file for each name."""

"""Indexes of models: finding, fetching and publishing."""

"""Indexes of models: find, fetch and publish models."""

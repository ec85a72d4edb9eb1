"""Specs of the layers of a network: its input, its blocks and their neurons."""

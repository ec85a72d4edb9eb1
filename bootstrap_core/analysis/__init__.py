"""Measuring networks: scores, operations, statistics of learning, plots and animations."""

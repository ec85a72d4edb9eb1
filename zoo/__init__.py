"""What exists and how to get it."""

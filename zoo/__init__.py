"""What exists and how to get it."""

__all__: list[str] = []

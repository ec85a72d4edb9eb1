"""Weight norm: its three styles, and the migration of state dicts from one to another."""

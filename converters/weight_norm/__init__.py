"""Weight norm: its three styles, and the migration of state dicts between them."""

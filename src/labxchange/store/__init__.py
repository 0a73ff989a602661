"""What the node remembers: one SQLite database, the audit trail included, so that an entry and its effect share a transaction."""

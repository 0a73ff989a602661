"""Moving a share version: reading it at the sender, fetching, journalling and releasing it at the recipient."""

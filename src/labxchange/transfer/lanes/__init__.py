"""Lanes of transfers: opened over the control channel, run by worker processes, fetched from and sent over by the node."""

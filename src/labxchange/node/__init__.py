"""The node: one process per user that holds the keys, the store and the transfers; every face talks to it."""

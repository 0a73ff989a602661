"""The control plane: handshake, sealed records, and the session that joins them."""

"""Sockets, QUIC through aioquic, and a simulated network with a virtual clock; nothing here decides who may do what."""

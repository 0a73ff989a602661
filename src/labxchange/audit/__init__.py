"""The audit trail as values: entries, leaves, scopes, checkpoints, cosigning rules, exports. Pure: no disk, clock or randomness.

``verifier`` stands apart: one file on the standard library and ``cryptography``, which shares no code with the rest.
"""

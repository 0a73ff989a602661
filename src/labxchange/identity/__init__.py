"""Who a party is: keys, fingerprint, signed statements, the contact card, the invitation. Pure: no disk, clock or randomness."""

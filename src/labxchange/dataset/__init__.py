"""What a dataset is: names, listing, manifest, and what a check found. Pure: no disk, clock or randomness."""

"""What a dataset is: the names it may hold, its listing, its manifest, and what a check found. Pure: no disk, clock, randomness."""

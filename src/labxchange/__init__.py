"""labxchange."""

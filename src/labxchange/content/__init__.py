"""What is inside files: tables."""

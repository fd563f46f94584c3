"""What processes tell each other through files."""

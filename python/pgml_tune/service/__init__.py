"""What the product does, over stores and engines."""

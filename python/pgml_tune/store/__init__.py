"""The only SQL text in Python: rows in, records out."""

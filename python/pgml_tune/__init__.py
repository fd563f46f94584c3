"""Embed, search and manage local models from SQL: the package behind the extension."""

__version__ = "0.1.0"

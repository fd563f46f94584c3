"""The process that holds models for all sessions of the server and computes for them, batching what they ask."""

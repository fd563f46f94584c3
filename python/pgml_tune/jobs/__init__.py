"""Offline jobs: the only code that loads training libraries; each job is a process of its own, never a backend."""

"""The vectors a session remembers: no text, no model, only keys nobody can guess."""

from __future__ import annotations

from collections import OrderedDict

_ENTRY_OVERHEAD_BYTES = 250  # key, two object headers and the place in the dictionary


class SessionCache:
    """The most recently used vectors in their text form, bounded in bytes."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, str] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> str | None:
        vector = self._entries.get(key)
        if vector is not None:
            self._entries.move_to_end(key)
        return vector

    def put(self, key: bytes, vector: str, max_bytes: int) -> None:
        """Remember a vector, forgetting the least recently used ones beyond `max_bytes`."""
        if key not in self._entries:
            self._bytes += len(vector) + _ENTRY_OVERHEAD_BYTES
        self._entries[key] = vector
        while self._bytes > max_bytes:
            _, forgotten = self._entries.popitem(last=False)
            self._bytes -= len(forgotten) + _ENTRY_OVERHEAD_BYTES

    def clear(self) -> None:
        self._entries.clear()
        self._bytes = 0

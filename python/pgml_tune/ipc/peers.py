"""Who may be at the other end of the socket between sessions and the worker."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from functools import lru_cache
from typing import Protocol

_ROOT = 0
_PEER = struct.Struct("3i")  # process, user and group at the other end


class Connected(Protocol):
    """A Unix socket, or what asyncio gives in its place."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def user_behind(connection: Connected) -> int:
    """The user of the operating system at the other end of a Unix socket."""
    _, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(user)


@lru_cache(maxsize=1)
def trusted_users(group: str) -> frozenset[int]:
    """The users of the operating system that are trusted: root, this one, and the members of a group if one is set."""
    users = {_ROOT, os.geteuid()}
    if group:
        try:
            found = grp.getgrnam(group)
        except KeyError:
            return frozenset(users)
        for user in pwd.getpwall():
            if user.pw_gid == found.gr_gid or user.pw_name in found.gr_mem:
                users.add(user.pw_uid)
    return frozenset(users)

"""Who may be at the other end of the socket between sessions and the worker."""

from __future__ import annotations

import grp
import os
import pwd
from functools import lru_cache

_ROOT = 0


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

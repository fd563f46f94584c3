import hmac
import os
import stat
import threading

import numpy as np
import pytest

from pgml_tune.db import Transaction
from pgml_tune.errors import NotReady
from pgml_tune.service.counters import Counters
from pgml_tune.service.keys import KeyMaker
from pgml_tune.service.secret import FILE_NAME, read_secret
from pgml_tune.service.session_cache import SessionCache
from pgml_tune.service.table_cache import FLUSH_ENTRIES, TableCache
from pgml_tune.store.cache import CacheEntry

ENTRY = CacheEntry(b"k" * 32, 1, 10, b"\0" * 16)


class FakeSession:
    """Records statements; its transaction is what the test says."""

    def __init__(self, **transaction):
        allowed = {"is_read_only": False, "is_serializable": False, "is_standby": False}
        self._transaction = Transaction(**(allowed | transaction))
        self.statements = []

    def fetch(self, sql, *args):
        self.statements.append(args)
        return []

    fetch_if_possible = fetch

    def transaction(self):
        return self._transaction


def test_a_key_needs_the_secret_and_tells_scopes_and_texts_apart():
    keys = {
        KeyMaker(secret).key(scope, text)
        for secret in (b"1", b"2")
        for scope in ("a", "b", "a:b")
        for text in (b"x", b"y", b"", b"b:x")
    }
    assert len(keys) == 24


def test_a_scope_cannot_be_continued_by_a_text():
    keys = KeyMaker(b"s")
    assert keys.key("a", b"b:x") != keys.key("a:b", b"x")


def test_a_key_is_an_hmac_whatever_was_keyed_before():
    keys = KeyMaker(b"s")
    assert keys.key("a", b"x") == keys.key("a", b"x") == hmac.digest(b"s", b"1:a:x", "sha256")


def test_a_sealed_vector_comes_back_under_its_key_only():
    keys, vector = KeyMaker(b"s"), np.arange(1, 5, dtype=np.float32).tobytes()
    sealed = keys.seal(b"k", vector)
    assert keys.unseal(b"k", sealed, 4) == vector
    assert vector not in sealed
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    for key, content, dimensions in [
        (b"other", sealed, 4), (b"k", flipped, 4), (b"k", sealed[:-1], 4), (b"k", sealed, 3), (b"k", b"", 4),
        (b"k", vector, 4),
    ]:  # fmt: skip
        assert keys.unseal(key, content, dimensions) is None
    assert KeyMaker(b"t").unseal(b"k", sealed, 4) is None


def test_the_session_cache_forgets_the_least_recently_used_beyond_its_bytes():
    cache = SessionCache()
    for name in (b"a", b"b", b"c"):
        cache.put(name, "v" * 1000, max_bytes=4000)
    assert cache.get(b"a") is not None
    cache.put(b"d", "v" * 1000, max_bytes=4000)
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None


def test_a_session_cache_of_no_bytes_keeps_nothing():
    cache = SessionCache()
    cache.put(b"a", "v", max_bytes=0)
    assert cache.get(b"a") is None


def test_putting_a_vector_twice_counts_its_bytes_once():
    cache = SessionCache()
    for _ in range(100):
        cache.put(b"a", "v" * 100, max_bytes=1000)
    cache.put(b"b", "v" * 100, max_bytes=1000)
    assert cache.get(b"a") is not None


def test_many_entries_are_written_in_one_statement():
    db, table = FakeSession(), TableCache(Counters())
    for _ in range(FLUSH_ENTRIES):
        table.add(db, ENTRY)
    ((keys, *_),) = db.statements
    assert len(keys) == FLUSH_ENTRIES


def test_counts_are_flushed_in_the_statement_of_the_entries_and_then_forgotten():
    db, counters = FakeSession(), Counters()
    table = TableCache(counters)
    counters.of(1).calls = 3
    table.add(db, ENTRY)
    table.flush_if_due(db)
    ((keys, _, _, _, counts, *_),) = db.statements
    assert keys == [ENTRY.key]
    assert '"calls": 3' in counts
    assert not counters


def test_a_second_flush_waits_for_its_time():
    db, counters = FakeSession(), Counters()
    table = TableCache(counters)
    for _ in range(2):
        counters.of(1).calls += 1
        table.flush_if_due(db)
    assert len(db.statements) == 1


@pytest.mark.parametrize("state", ["is_read_only", "is_serializable", "is_standby"])
def test_nothing_is_written_where_the_transaction_forbids_it_and_counts_are_kept(state):
    db, counters = FakeSession(**{state: True}), Counters()
    table = TableCache(counters)
    counters.of(1).calls = 1
    table.add(db, ENTRY)
    table.flush_if_due(db)
    assert db.statements == []
    assert counters


@pytest.mark.parametrize("state", ["is_serializable", "is_standby"])
def test_unlogged_tables_are_not_read_where_that_would_fail(state):
    db = FakeSession(**{state: True})
    assert TableCache(Counters()).lookup(db, [b"k"]) == {}
    assert db.statements == []


def test_the_secret_is_made_once_and_only_its_owner_reads_it(tmp_path):
    secret = read_secret(tmp_path)
    assert len(secret) == 32
    assert read_secret(tmp_path) == secret
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_sessions_that_start_together_share_one_secret(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(read_secret(tmp_path))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1


def test_a_secret_that_others_can_read_is_refused(tmp_path):
    read_secret(tmp_path)
    os.chmod(tmp_path / FILE_NAME, 0o644)
    with pytest.raises(NotReady):
        read_secret(tmp_path)


def test_a_missing_spool_folder_is_named(tmp_path):
    with pytest.raises(NotReady) as caught:
        read_secret(tmp_path / "none")
    assert str(tmp_path / "none") in caught.value.message

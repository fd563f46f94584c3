"""What was prepared is whole after a dump and a restore."""

from pathlib import Path

import psycopg
from conditions import fetch_value
from conftest import Connect
from dumping import restored_copy
from job_workers import Installation
from spaces import missing_steps, register_spaces, wrong_rows


def test_what_is_prepared_can_be_promoted_after_a_restore(
    db: psycopg.Connection[tuple[object, ...]], server_home: Path, connect: Connect, tmp_path: Path
) -> None:
    register_spaces(db, Installation(server_home))
    db.execute("CREATE TABLE doc (id integer PRIMARY KEY, body text)")
    db.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 40) AS g")
    db.execute("CALL auto_embed('doc', 'body', 't')")
    db.execute("CALL embed_table('doc', 'body', 'embedding', 't')")
    db.execute("""CALL prepare_rollout('t', 'v2', '{"sample": 10}')""")
    with restored_copy(db, connect, tmp_path, "custom") as copy:
        assert missing_steps(copy, "v2") == []
        copy.execute("INSERT INTO doc (id, body, embedding) VALUES (100, 'new', embed('new', 't'))")
        copy.execute("UPDATE doc SET body = 'changed', embedding = embed('changed', 't') WHERE id < 10")
        assert wrong_rows(copy, "public.doc.body", "v1") == wrong_rows(copy, "public.doc.body", "v2") == []
        copy.execute("SELECT rollout_model('t', 'v2')")
        right = "SELECT count(*) FROM doc WHERE embedding <=> embed(body, 't') < 1e-3"
        assert fetch_value(copy, right) == 41
        copy.execute("UPDATE doc SET body = 'again', embedding = embed('again', 't') WHERE id = 20")
        copy.execute("SELECT rollback_model('t')")
        assert fetch_value(copy, right) == 41

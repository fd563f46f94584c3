"""A model that writes what a test has written down, in place of the network of a registered version."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from conditions import fetch_value

MODEL = "scripted"
WHOLE = {"version": 1, "schema": "full", "values": "hint"}  # prompts with the whole schema
ALONE = {"version": 1, "schema": "none", "values": "placeholder", "lower": True}  # the question alone
_REGISTER = """
SELECT pgml_tune._register_version(%s, 'text_to_sql', NULL, v.version, NULL, v.artifact_sha256, 1,
    to_jsonb(v) || '{"task": "text_to_sql", "engine": "ctranslate2", "metrics": {}, "source": {}}')
FROM pgml_tune.model_version AS v
JOIN pgml_tune.model AS m ON m.model_id = v.model_id AND m.name = 'minilm' ORDER BY v.model_version_id LIMIT 2
"""
SHOP = """
CREATE SCHEMA shop;
CREATE TYPE shop.state AS ENUM ('open', 'shipped');
CREATE TABLE shop.customer (id integer PRIMARY KEY, name text, city text, secret_note text);
CREATE TABLE shop.orders (
    id integer PRIMARY KEY, customer_id integer REFERENCES shop.customer, total numeric, state shop.state
);
CREATE TABLE shop.payroll (id integer PRIMARY KEY, salary numeric);
COMMENT ON TABLE shop.orders IS 'what customers have bought';
COMMENT ON COLUMN shop.orders.total IS 'in euros';
INSERT INTO shop.customer
SELECT g, 'Ada ' || g, (ARRAY['Berlin', 'Paris', 'New York'])[1 + g % 3], 'note' FROM generate_series(1, 30) AS g;
INSERT INTO shop.orders SELECT g, g, g * 10, 'open' FROM generate_series(1, 30) AS g;
GRANT USAGE ON SCHEMA shop TO alice, bob;
GRANT SELECT (id, name, city) ON shop.customer TO alice, bob;
GRANT SELECT ON shop.orders TO alice, bob;
ANALYZE shop.customer, shop.orders;
"""
COUNT = "SELECT COUNT(*) FROM customer"
# The module is the same for all functions of a session; GD is, too.
_REPLACE = """
DO LANGUAGE plpython3u $python$
import json
from types import SimpleNamespace
from pgml_tune.backend import session
session.text_to_sql()
from pgml_tune.engine.generator import Generated, Generator
from pgml_tune.errors import ArtifactDamaged
from pgml_tune.service import sql_generation

class Scripted(Generator):
    def __init__(self, digest):
        self.digest = digest
        self.config = SimpleNamespace(generation={{"prompt": GD["form"]}}, max_tokens=GD["most_words"])

    def count_tokens(self, prompt):
        return len(prompt.split())

    def generate(self, prompt, k, work, checkpoint=lambda: None):
        GD["prompts"].append(prompt)
        if self.digest == GD["broken"]:
            raise ArtifactDamaged("broken")
        while GD["is_endless"]:
            checkpoint()
        answers = next((GD["answers"][part] for part in GD["answers"] if part in prompt), [])
        return [Generated(text, -0.1 * place) for place, text in enumerate(answers[:k])]

GD.update(json.loads({script}))
GD["prompts"] = []
sql_generation.open_generator = lambda artifact, threads: Scripted(artifact.digest)
$python$
"""


def register(db: psycopg.Connection[Any]) -> None:
    """Adds two versions that sessions let the script speak for."""
    db.execute(_REGISTER, (MODEL,))
    db.execute(
        "CREATE FUNCTION prompts() RETURNS text[] LANGUAGE plpython3u AS"
        " $$ found = list(GD['prompts']); GD['prompts'].clear(); return found $$"
    )


def open_shop(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Makes a superuser's session one of alice in schema shop, where she may read some of the tables."""
    db.execute("SET client_min_messages = warning")
    register(db)
    db.execute(SHOP)  # type: ignore[arg-type]
    db.execute("SET search_path = shop, public")
    db.execute("SET ROLE alice")
    return db


def follow(
    session: psycopg.Connection[Any],
    answers: Mapping[str, Sequence[str]],
    form: Mapping[str, Any] = WHOLE,
    most_words: int = 100_000,
    broken: str | None = None,
    is_endless: bool = False,
) -> None:
    """Lets the model of a superuser's session answer a prompt that contains a key with what stands under it.

    The version of digest `broken` fails; an endless one writes until it is interrupted.
    """
    script = json.dumps(
        {"answers": dict(answers), "form": dict(form), "most_words": most_words, "broken": broken,
         "is_endless": is_endless}
    )  # fmt: skip
    session.execute(_REPLACE.format(script=repr(script)))


def prompts(session: psycopg.Connection[Any]) -> list[str]:
    """The prompts that the model has got since this was asked last."""
    role = fetch_value(session, "SELECT current_user")
    session.execute("RESET ROLE")
    found: list[str] = fetch_value(session, "SELECT public.prompts()")
    session.execute(f"SET ROLE {role}")
    return found


def say(session: psycopg.Connection[Any], answers: Any, **options: Any) -> None:
    """Let the model of a session of alice answer every question so, or as follow() takes it."""
    session.execute("RESET ROLE")
    follow(session, answers if isinstance(answers, dict) else {"": answers}, **options)
    session.execute("SET ROLE alice")


def ask(session: psycopg.Connection[Any], question: str | None = "how many?", **arguments: Any) -> Any:
    """The answer of text_to_sql()."""
    named = "".join(f", {name} => %({name})s" for name in arguments)
    return fetch_value(session, f"SELECT text_to_sql(%(question)s{named})", {"question": question, **arguments})


def candidates(session: psycopg.Connection[Any], question: str | None = "how many?", **arguments: Any) -> list[Any]:
    """The rows of text_to_sql_candidates()."""
    named = "".join(f", {name} => %({name})s" for name in arguments)
    return session.execute(
        f"SELECT * FROM text_to_sql_candidates(%(question)s{named})", {"question": question, **arguments}
    ).fetchall()

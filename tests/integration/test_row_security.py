"""Two tenants in one collection: whatever one of them tries, no row and no distance of the other comes out."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import psycopg
import pytest
from attacks import ATTACKS, HYBRID, LEAK, QUERY, SEARCH
from collection_parts import parts
from conditions import fetch_value, refused
from conftest import Connect

NOUNS = {
    "alice": ["bicycle", "kettle", "harbour", "violin", "glacier"],
    "bob": ["invoice", "lawsuit", "diagnosis", "password", "salary"],
}
ADJECTIVES = ["red", "broken", "ancient", "expensive", "quiet"]
DISTANCE = re.compile(r"\d\.\d{6,}(?:e-?\d+)?")


@dataclass(frozen=True)
class Policy:
    """A way to tell tenants apart: what the policy asks, how a session becomes a tenant, how many rows both have."""

    name: str
    condition: str
    become: str
    rows: int


BY_ROLE = Policy("by_role", "tenant = current_user", "SET ROLE {tenant}", 5000)
BY_SETTING = Policy(
    "by_setting",
    "tenant = current_setting('app.tenant', true)",
    "SET ROLE alice; SET app.tenant = {tenant}",
    500,
)
POLICIES = [BY_ROLE, BY_SETTING]


@dataclass
class Tenants:
    """A collection of alice's and bob's rows, how to reach its parts, and what alice must never see."""

    policy: Policy
    connect: Connect
    names: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    distances: set[float] = field(default_factory=set)
    pool: dict[str, psycopg.Connection[Any]] = field(default_factory=dict)

    @contextmanager
    def session(self, tenant: str) -> Iterator[psycopg.Connection[Any]]:
        """A session as a pool would hand it out: of a backend that has worked for this tenant before."""
        if tenant not in self.pool:
            user = "alice" if self.policy is BY_SETTING else tenant
            self.pool[tenant] = self.connect(user, prepare_threshold=None)
        self.pool[tenant].execute("SELECT set_config('app.tenant', %s, false)", (tenant,))
        yield self.pool[tenant]
        self.pool[tenant].execute("DISCARD ALL")

    def sql(self, statement: str) -> str:
        """A statement with the names of the collection's parts in it."""
        return re.sub(r"@(\w+)\b", lambda match: self.names.get(match[1], match[0]), statement)


def sentences(tenant: str) -> list[str]:
    return [f"the {adjective} {noun} w-{tenant}-{noun}" for adjective in ADJECTIVES for noun in NOUNS[tenant]]


@pytest.fixture(scope="module")
def tenancies(connect_shared: Connect) -> Callable[[Policy], Tenants]:
    """The tenants under a policy, built at first use."""
    return cache(lambda policy: build(policy, connect_shared))


@pytest.fixture(params=POLICIES, ids=lambda policy: policy.name)
def tenants(request: pytest.FixtureRequest, tenancies: Callable[[Policy], Tenants]) -> Tenants:
    return tenancies(request.param)


def build(policy: Policy, connect_shared: Connect) -> Tenants:
    """One table and its collection; its owner is olga, who is no tenant."""
    found = Tenants(policy, connect_shared)
    name, own = f"vault_{policy.name}", f"own_{policy.name}"
    with connect_shared() as db:
        db.execute(f"CREATE SCHEMA {name} AUTHORIZATION olga; CREATE SCHEMA {own} AUTHORIZATION alice")
        db.execute("SELECT configure('threads', '2')")
        db.execute("SET ROLE olga")
        db.execute(f"GRANT USAGE ON SCHEMA {name} TO alice, bob")
        db.execute(f"CREATE TABLE {name}.doc (id text PRIMARY KEY, tenant name NOT NULL, body text, amount integer)")
        for tenant in NOUNS:
            texts, half = sentences(tenant), policy.rows // 2
            db.execute(
                f"INSERT INTO {name}.doc SELECT format('k-%%s-%%s', %s::text, g), %s, (%s::text[])[1 + g %% 25], g"
                " FROM generate_series(1, %s) AS g",
                (tenant, tenant, texts, half),
            )
        db.execute(f"ALTER TABLE {name}.doc ENABLE ROW LEVEL SECURITY")
        db.execute(f"CREATE POLICY own_rows ON {name}.doc USING ({policy.condition})")
        db.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.doc TO alice, bob")
        options = '{"index": "hnsw"}'
        db.execute(f"CALL auto_embed('{name}.doc', 'body', collection => '{name}', options => '{options}')")
        found.names = parts(db, name) | {"own": own, "schema": name}
        db.execute(found.sql("ANALYZE @source; ANALYZE @side"))
        hidden = db.execute(
            found.sql(
                "SELECT DISTINCT left(v.embedding::text, 40), encode(s.text_sha256, 'hex'), v.embedding <=> @query(%s)"
                " FROM @view AS v JOIN @side AS s ON s.key_1 = v.id WHERE v.id LIKE 'k-bob-%%'"
            ),
            (QUERY,),
        ).fetchall()
    assert len(hidden) >= 25
    found.secrets = {"k-bob-", "w-bob-"} | {row[0] for row in hidden} | {row[1] for row in hidden}
    found.distances = {round(row[2], 7) for row in hidden}
    with found.session("alice") as alice:
        alice.execute(found.sql(LEAK))
    return found


@dataclass
class Seen:
    """All that a session was shown: rows, notices and errors."""

    texts: list[str] = field(default_factory=list)
    states: set[str] = field(default_factory=set)

    def notice(self, report: psycopg.errors.Diagnostic) -> None:
        self.texts += [part for part in (report.message_primary, report.message_detail, report.message_hint) if part]


def look(session: psycopg.Connection[Any], statements: list[str]) -> Seen:
    """Runs statements, whether they succeed or not, and keeps everything that comes back."""
    seen = Seen()
    session.add_notice_handler(seen.notice)
    for statement in statements:
        try:
            if statement.startswith("COPY"):
                with session.cursor().copy(statement) as copy:
                    seen.texts.append(b"".join(copy).decode())
                continue
            cursor = session.execute(statement)
            while True:
                if cursor.description:
                    seen.texts += [str(row) for row in cursor.fetchall()]
                if not cursor.nextset():
                    break
        except psycopg.Error as error:
            seen.notice(error.diag)
            seen.texts += [part for part in (error.diag.context, error.diag.internal_query) if part]
            seen.states.add(str(error.sqlstate))
            if session.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
                session.execute("ROLLBACK")
    session.remove_notice_handler(seen.notice)
    return seen


def leaks(tenants: Tenants, seen: Seen) -> list[str]:
    """Which secrets of bob are in what alice has seen."""
    text = "\n".join(seen.texts)
    shown = {round(float(number), 7) for number in DISTANCE.findall(text)}
    return sorted(secret for secret in tenants.secrets if secret in text) + sorted(map(str, shown & tenants.distances))


# Where the tenant is a setting, the policy is another expression and all else is the same.
ON_SETTINGS = ["view", "semantic_search", "filters", "hybrid_search", "leaky_function_over_the_view",
               "leaky_function_over_the_side_table", "own_operators_and_functions"]  # fmt: skip
CASES = [(policy, name) for policy in POLICIES for name in (ATTACKS if policy is BY_ROLE else ON_SETTINGS)]


@pytest.mark.parametrize(("policy", "name"), CASES, ids=[f"{policy.name}-{name}" for policy, name in CASES])
def test_attack_shows_nothing_of_the_other_tenant(
    tenancies: Callable[[Policy], Tenants], policy: Policy, name: str
) -> None:
    tenants, attack = tenancies(policy), ATTACKS[name]
    with tenants.session("alice") as alice:
        seen = look(alice, [tenants.sql(statement) for statement in attack.statements])
    assert not leaks(tenants, seen)
    text = "\n".join(seen.texts)
    if attack.refused:
        assert "k-alice-" not in text and seen.states <= set(attack.refused.split())
    else:
        assert re.search("[kw]-alice-", text), seen.states
    assert not seen.states & {"XX000", "38000"}


@pytest.mark.parametrize("attack", ["side_table", "view", "semantic_search", "filters", "copy", "cursors"])
def test_the_same_statements_of_the_other_tenant_do_show_his_rows(tenants: Tenants, attack: str) -> None:
    with tenants.session("bob") as bob:
        seen = look(bob, [tenants.sql(statement) for statement in ATTACKS[attack].statements])
    assert len(leaks(tenants, seen)) >= 2


def test_functions_of_the_owner_cannot_be_called(tenants: Tenants) -> None:
    collection_id = re.search(r"embedding_(\d+)_", tenants.names["side"])
    assert collection_id
    with tenants.session("alice") as alice:
        callable_ones = alice.execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = 'pgml_tune'::regnamespace"
            " AND p.proname ~ %s AND has_function_privilege(p.oid, 'EXECUTE')",
            (rf"^_(sync|keep)_{collection_id[1]}$",),
        ).fetchall()
        assert callable_ones == []
        own = alice.execute(
            "SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'pgml_tune'::regnamespace"
            " AND p.proname ~ %s",
            (rf"^_(sync|keep)_{collection_id[1]}$",),
        ).fetchall()
    assert own


def test_tenant_gets_all_of_his_rows_although_those_of_others_are_nearer(tenants: Tenants) -> None:
    with tenants.session("alice") as alice:
        for text in sentences("bob")[::5]:
            search = "SELECT key ->> 'id', distance FROM semantic_search(%s, %s, 10)"
            rows = alice.execute(search, (tenants.names["collection"], text)).fetchall()
            assert len(rows) == 10 and all(key.startswith("k-alice-") for key, _ in rows)
            best = fetch_value(alice, tenants.sql("SELECT min(embedding <=> @query(%s)) FROM @view"), (text,))
            assert rows[0][1] == pytest.approx(best, abs=1e-6)


def test_ranks_of_hybrid_search_do_not_count_hidden_rows(tenants: Tenants) -> None:
    with tenants.session("alice") as alice:
        search = "SELECT score FROM hybrid_search(%s, %s, 5, weight => 1)"
        scores = [row[0] for row in alice.execute(search, (tenants.names["collection"], sentences("bob")[0]))]
    assert scores[0] == pytest.approx(1 / 61)


def test_collections_count_what_the_caller_sees(tenants: Tenants) -> None:
    counts = "SELECT rows, embedded, stale FROM pgml_tune.embedding_collections WHERE collection = %s"
    with tenants.session("alice") as alice, tenants.session("bob") as bob, tenants.connect("stranger") as stranger:
        for tenant in (alice, bob):
            assert tenant.execute(counts, (tenants.names["collection"],)).fetchone() == (
                tenants.policy.rows // 2, tenants.policy.rows // 2, 0,
            )  # fmt: skip
        with refused("42501"):
            stranger.execute(counts, (tenants.names["collection"],))


@pytest.mark.parametrize("mode", ["auto", "force_generic_plan"])
@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, body FROM @view",
        "SELECT key_1 FROM @side",
        f"SELECT * FROM {SEARCH}",
        f"SELECT * FROM {HYBRID})",
        "SELECT rows FROM pgml_tune.embedding_collections WHERE collection = '@collection'",
    ],
    ids=["view", "side_table", "semantic_search", "hybrid_search", "collections"],
)
def test_plan_made_for_one_tenant_is_not_used_for_the_next(tenants: Tenants, query: str, mode: str) -> None:
    if "pooled" not in tenants.pool:
        tenants.pool["pooled"] = tenants.connect(prepare_threshold=None)
    pooled = tenants.pool["pooled"]
    pooled.execute("DISCARD ALL")
    pooled.execute(f"SET plan_cache_mode = {mode}")
    pooled.execute(tenants.policy.become.format(tenant="bob"))
    pooled.execute("PREPARE shown AS " + tenants.sql(query))
    count = {"alice": 0, "bob": 0}
    for tenant in ("bob", "bob", "alice", "alice", "bob", "alice"):
        pooled.execute("RESET ROLE; " + tenants.policy.become.format(tenant=tenant))
        seen = look(pooled, ["EXECUTE shown"])
        assert not seen.states
        if tenant == "alice":
            assert not leaks(tenants, seen)
        count[tenant] += len(seen.texts)
    assert count["alice"] == count["bob"] > 0

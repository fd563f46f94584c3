"""GeoQuery: a model from scratch, in two languages or one, then refined by what its own SQL returns."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql
from report import Figure, at_least, at_most
from server import Connection
from training import Plan, call, load

SCHEMA = "geography"
_QUERY = (
    "SELECT question, query FROM public.geo_question WHERE part = '{part}' AND lang IN ({languages}) ORDER BY number"
)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training has made, and what it took."""

    version: str
    figures: list[Figure]


def load_geography(connection: Connection, plan: Plan) -> None:
    """The tables, the questions, and the search path by which both are found."""
    folder = plan.data_dir / "text2sql"
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    connection.execute("SELECT set_config('search_path', %s, false)", (f"{SCHEMA}, public",))
    with gzip.open(folder / "db" / f"{SCHEMA}.sql.gz", "rt", encoding="utf-8") as script:
        connection.execute(script.read().encode())
    load(
        connection,
        "public.geo_question",
        "part text, number integer, lang text, question text, query text",
        (
            (part, number, row["lang"], row["question"], row["sql"])
            for part in ("train", "dev")
            for number, row in enumerate(_rows(plan, part))
        ),
    )
    connection.execute("ANALYZE")


def train(connection: Connection, plan: Plan, part: str, languages: Sequence[str]) -> Trained:
    """Train on the questions in some languages, and tell what it took."""
    title = f"Training: GeoQuery, {' and '.join(languages)}; execution accuracy on dev by the job itself"
    queries = {
        name: _QUERY.format(part=name, languages=", ".join(f"'{language}'" for language in languages))
        for name in ("train", "dev")
    }
    # One core: the network is too small for two, and on a busy machine they would wait for each other.
    options = {"threads": 1, "refine": {"rounds": 2}} | ({"epochs": 1} if plan.is_quick else {})
    job = call(
        connection,
        "finetune_text_to_sql",
        model=f"geo-{part}",
        train_query=queries["train"],
        eval_query=queries["dev"],
        options=options,
    )
    result = job.result
    rounds = [entry["execution_accuracy"] for entry in result["refine"]]
    told = ", ".join(f"{value:.1f}" for value in rounds)
    rows = f"{result['train_rows']} rows, {result['dropped_rows']} left out, {result['steps']} steps"
    figures = [
        at_most(title, "the whole CALL", job.seconds, "s", 1200, rows),
        Figure(title, "on a core", result["core_seconds"], "s"),
        Figure(title, "before refine", rounds[0], "%"),
        at_least(title, "best round of refine", max(rounds), "%", rounds[0], told),
        Figure(title, "as stored, in 8 bits", result["after"], "%", note=job.version),
        Figure(title, "exact match", result["evaluation"]["exact_match"], "%"),
        Figure(title, "phrases that mean values", result["phrases"], ""),
    ]
    return Trained(job.version, figures)


def _rows(plan: Plan, part: str) -> Iterator[dict[str, str]]:
    with gzip.open(plan.data_dir / "text2sql" / f"{part}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["db"] == SCHEMA]
    yield from plan.some(rows, 60)

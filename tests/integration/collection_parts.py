"""What the parts of a collection are called."""

from typing import Any

import psycopg
from collection_state import collection_row


def parts(db: psycopg.Connection[Any], collection: str) -> dict[str, str]:
    """The source, the side table, the view and the query function, ready to stand in SQL."""
    row = collection_row(db, collection)
    names = {"source": row["source_name"], "side": row["embeddings_name"], "view": row["view_name"]}
    return names | {"query": str(row["query_function"]).split("(")[0], "collection": collection}

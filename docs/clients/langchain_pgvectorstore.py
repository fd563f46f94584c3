"""LangChain's PGVectorStore with vectors that the database computes; connects by PGHOST, PGDATABASE, PGUSER, ..."""

import psycopg
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_postgres import PGEngine, PGVectorStore
from pgvector.psycopg import register_vector

MODEL = "minilm@v1"  # with its version: the vectors that are stored stay comparable when minilm serves another one
connection = psycopg.connect(autocommit=True)
register_vector(connection)


class DatabaseEmbeddings(Embeddings):
    """Embeds texts where they are stored."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        rows = connection.execute("SELECT unnest(embed(%s::text[], %s))", (texts, MODEL))
        return [vector.tolist() for (vector,) in rows]

    def embed_query(self, text: str) -> list[float]:
        row = connection.execute("SELECT embed(%s::text, %s, kind => 'query')", (text, MODEL)).fetchone()
        return row[0].tolist()


embeddings = DatabaseEmbeddings()
engine = PGEngine.from_connection_string("postgresql+psycopg://")
engine.init_vectorstore_table("passage", vector_size=len(embeddings.embed_query("")))
store = PGVectorStore.create_sync(engine, table_name="passage", embedding_service=embeddings)

# The store fills the column itself, so say what its vectors are of: a change of model then knows of them.
connection.execute("SELECT track_column('passage', 'embedding', %s)", (MODEL,))

store.add_documents(
    [
        Document("VACUUM reclaims the space of dead rows.", metadata={"topic": "storage"}),
        Document("A savepoint lets part of a transaction be undone.", metadata={"topic": "transactions"}),
        Document("Streaming replication keeps a second server up to date.", metadata={"topic": "replication"}),
    ]
)
for document in store.similarity_search("how do I free disk space after deleting rows", k=1):
    print(document.metadata["topic"], "|", document.page_content)
for row in connection.execute("SELECT target_column, model, version, filled_by FROM pgml_tune.tracked_columns"):
    print(*row)

# It prints:
# storage | VACUUM reclaims the space of dead rows.
# embedding minilm v1 user

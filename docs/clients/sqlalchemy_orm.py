"""A table of SQLAlchemy that is kept embedded; connects by PGHOST, PGDATABASE, PGUSER, ..."""

import pgvector.sqlalchemy  # noqa: F401 - makes the type vector known
from sqlalchemy import MetaData, Table, column, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine("postgresql+psycopg://")


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "article"
    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]


Base.metadata.create_all(engine)

# In autocommit it fills a large table in committed batches; in engine.begin() it does all at once, with a notice.
with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
    connection.execute(text("CALL auto_embed('article', 'body')"))

with Session(engine) as session:
    session.add(Article(body="VACUUM reclaims the space of dead rows."))
    session.add(Article(body="A savepoint lets part of a transaction be undone."))
    session.add(Article(body="Streaming replication keeps a second server up to date."))
    session.commit()

question = "how do I take back the last change only"
with Session(engine) as session:
    # The rows nearest to a question, as objects.
    found = func.semantic_search("public.article.body", question, 1).table_valued(column("key", JSONB), "distance")
    nearest = select(Article, found.c.distance).join(found, found.c.key["id"].as_integer() == Article.id)
    for article, distance in session.execute(nearest.order_by(found.c.distance)):
        print(f"semantic_search: {article.body} ({distance:.2f})")

    # The same in a query of one's own, by the view and the function that auto_embed has made.
    view = Table("article_body_embedding", MetaData(), autoload_with=engine)
    place = func.article_body_query(question, type_=view.c.embedding.type)
    for (body,) in session.execute(select(view.c.body).order_by(view.c.embedding.cosine_distance(place)).limit(1)):
        print(f"ORDER BY: {body}")

# It prints:
# semantic_search: A savepoint lets part of a transaction be undone. (0.75)
# ORDER BY: A savepoint lets part of a transaction be undone.

"""A model of Django that is kept embedded; connects by PGHOST, PGDATABASE, PGUSER, ..."""

import os

import django
from django.conf import settings
from django.db import connection, models
from django.db.models import F, Func, Value
from pgvector.django import CosineDistance, VectorField

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()


class Ticket(models.Model):
    body = models.TextField()

    class Meta:
        app_label = "support"


class TicketEmbedding(models.Model):
    """The view that auto_embed makes."""

    id = models.BigIntegerField(primary_key=True)
    body = models.TextField()
    embedding = VectorField()

    class Meta:
        app_label = "support"
        db_table = "support_ticket_body_embedding"
        managed = False


with connection.schema_editor() as editor:
    editor.create_model(Ticket)

# In a migration: migrations.RunSQL("CALL auto_embed(...)", "SELECT drop_auto_embed(...)"). With atomic = False it fills
# a large table in committed batches; in a transaction, as by default and in atomic(), it does all at once.
with connection.cursor() as cursor:
    cursor.execute("CALL auto_embed('support_ticket', 'body')")

Ticket.objects.bulk_create(
    [
        Ticket(body="VACUUM reclaims the space of dead rows."),
        Ticket(body="A savepoint lets part of a transaction be undone."),
        Ticket(body="Streaming replication keeps a second server up to date."),
    ]
)

question = "keep a copy of the database on another machine"
# The rows nearest to a question, as objects.
nearest = """
    SELECT t.*, s.distance
    FROM semantic_search('public.support_ticket.body', %s, 1) AS s
    JOIN support_ticket AS t ON t.id = (s.key ->> 'id')::bigint
    ORDER BY s.distance
"""
for ticket in Ticket.objects.raw(nearest, [question]):
    print(f"semantic_search: {ticket.body} ({ticket.distance:.2f})")

# The same in a query of one's own, by the view and the function that auto_embed has made.
place = Func(Value(question), function="support_ticket_body_query", output_field=VectorField())
for hit in TicketEmbedding.objects.order_by(CosineDistance(F("embedding"), place))[:1]:
    print(f"ORDER BY: {hit.body}")

# It prints:
# semantic_search: Streaming replication keeps a second server up to date. (0.77)
# ORDER BY: Streaming replication keeps a second server up to date.

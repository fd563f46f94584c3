#!/bin/bash
# Semantic search over the descriptions of a server's own objects, on the private cluster "dev".
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

"$checkout/scripts/dev.sh"
. "$checkout/.dev/env"
"$("$(find_pg_config)" --bindir)/psql" --no-psqlrc --quiet < "$checkout/scripts/demo.sql" 2>&1
cat <<END

Done in $SECONDS s. The server keeps running until: make dev-stop
Open psql on it, and ask a question of your own:

    source .dev/env && psql
    SELECT document ->> 'description' FROM hybrid_search('demo.manual.description', 'your question', 5);
    SET search_path = demo_shop, public; SELECT text_to_sql('your question', 'demo_shop');

END

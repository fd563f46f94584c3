-- Eight fixed generations: an entry is only ever added, and a whole generation is emptied at once.
-- Unlogged and not dumped: everything in them can be computed again.
DO $$
BEGIN
    FOR v_generation IN 0 .. 7 LOOP
        EXECUTE pg_catalog.format($table$
            CREATE UNLOGGED TABLE pgml_tune.cache_entry_%1$s (
                entry_key        bytea NOT NULL,  -- HMAC of scope, artifact, prompt and text; never the text
                model_version_id bigint NOT NULL,
                role_id          oid NOT NULL,
                sealed           bytea NOT NULL,  -- the vector, masked and signed under the secret
                cached_at        timestamptz NOT NULL DEFAULT clock_timestamp()
            );
            ALTER TABLE pgml_tune.cache_entry_%1$s ALTER COLUMN sealed SET STORAGE EXTERNAL;
            COMMENT ON TABLE pgml_tune.cache_entry_%1$s IS 'Generation %1$s of the table cache.';
            -- Not unique: two sessions may add the same entry, neither waits for the other.
            CREATE INDEX cache_entry_%1$s_entry_key_idx ON pgml_tune.cache_entry_%1$s (entry_key);
        $table$, v_generation);
    END LOOP;
END
$$;

CREATE TABLE pgml_tune.cache_ring (
    is_single boolean PRIMARY KEY DEFAULT true,
    oldest    integer NOT NULL,
    CONSTRAINT cache_ring_is_single_check CHECK (is_single),
    CONSTRAINT cache_ring_oldest_check CHECK (oldest BETWEEN 0 AND 7)
);
COMMENT ON TABLE pgml_tune.cache_ring IS 'Which generation of the table cache is emptied next; moved by maintain() only.';
INSERT INTO pgml_tune.cache_ring (oldest) VALUES (0);


-- Added by the sessions as rows, so that nobody waits for a row; summed by maintain(), which forgets entries that are gone.
CREATE UNLOGGED TABLE pgml_tune.cache_hit (
    entry_key bytea NOT NULL,
    hits      bigint NOT NULL
);
COMMENT ON TABLE pgml_tune.cache_hit IS 'How often entries of the table cache were found; those never found have no row.';
-- cache_purge() asks for the hits of each entry.
CREATE INDEX cache_hit_entry_key_idx ON pgml_tune.cache_hit (entry_key);

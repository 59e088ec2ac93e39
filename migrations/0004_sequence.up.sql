-- The default of columns that a sequence of the home shard numbers, on the other shards: the routers give such rows
-- their numbers, so a row that comes here without one came around them.
CREATE OR REPLACE FUNCTION shardyard.unnumbered() RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the row has no number: its sequence is on the home shard'
        USING ERRCODE = '0A000', HINT = 'Insert the row through a router, in a statement of its own, or give the number.';
END $$;

-- How often a sequence was set (setval) through a router, on the home shard: the routers then forget the values that they have drawn.
CREATE TABLE IF NOT EXISTS shardyard.sequence_set (
    sequence oid    NOT NULL,
    times    bigint NOT NULL DEFAULT 1,
    CONSTRAINT sequence_set_pkey PRIMARY KEY (sequence)
);
REVOKE ALL ON TABLE shardyard.sequence_set FROM PUBLIC;

REVOKE ALL ON FUNCTION shardyard.unnumbered() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shardyard.unnumbered() TO PUBLIC;

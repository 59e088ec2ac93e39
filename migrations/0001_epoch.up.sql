-- The floor: the oldest epoch of the partition map that this shard accepts. A router whose map is older
-- may not use a new connection to this database. It only ever rises.
CREATE TABLE IF NOT EXISTS shardyard.epoch (
    singleton boolean NOT NULL DEFAULT true,
    floor     bigint  NOT NULL DEFAULT 0,
    CONSTRAINT epoch_pkey PRIMARY KEY (singleton),
    CONSTRAINT epoch_one_row CHECK (singleton),
    CONSTRAINT epoch_floor_not_negative CHECK (floor >= 0)
);

INSERT INTO shardyard.epoch (singleton, floor) VALUES (true, 0) ON CONFLICT (singleton) DO NOTHING;

-- Connections of every application role compare the floor before their first use: all may read it, and
-- nobody but the service role may do anything else in this schema.
REVOKE ALL ON SCHEMA shardyard FROM PUBLIC;
GRANT USAGE ON SCHEMA shardyard TO PUBLIC;
REVOKE ALL ON TABLE shardyard.epoch FROM PUBLIC;
GRANT SELECT ON TABLE shardyard.epoch TO PUBLIC;

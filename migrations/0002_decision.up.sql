-- The outcome of transactions that wrote on several shards. The last of the shards to act (the last agent)
-- writes the row in the transaction itself, so that its COMMIT is the decision for all of them. Recovery
-- writes a row 'abort' under the same key before it rolls anything back: a decision that comes later fails.
CREATE TABLE IF NOT EXISTS shardyard.decision (
    gid          text        NOT NULL,
    participants text[]      NOT NULL,
    outcome      text        NOT NULL,
    decided_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT decision_pkey PRIMARY KEY (gid),
    CONSTRAINT decision_outcome CHECK (outcome IN ('commit', 'abort')),
    CONSTRAINT decision_gid_length CHECK (pg_catalog.octet_length(gid) <= 199)
);

REVOKE ALL ON TABLE shardyard.decision FROM PUBLIC;

-- Decides the commit of the transaction that calls it, as whatever role the application works under. The
-- seventh part of the identifier is the id of the last agent's transaction, so nobody can decide for another
-- transaction than the own. The decision must not be lost in a crash: synchronous_commit is at least "on".
CREATE OR REPLACE FUNCTION shardyard.decide(gid text, participants text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $decide$
BEGIN
    IF split_part(gid, '/', 7) IS DISTINCT FROM pg_current_xact_id_if_assigned()::text THEN
        RAISE EXCEPTION 'transaction % cannot be decided here', gid USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    INSERT INTO shardyard.decision (gid, participants, outcome) VALUES (decide.gid, decide.participants, 'commit');
END
$decide$;

GRANT EXECUTE ON FUNCTION shardyard.decide(text, text[]) TO PUBLIC;

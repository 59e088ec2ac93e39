-- A decision needs the seal of the router that commits (0003), for this backend, this transaction and these
-- participants. The number in the identifier alone does not prove enough: after a crash Postgres gives out again the
-- number of a transaction that it had not written to disk, so another one could decide in its name.
CREATE OR REPLACE FUNCTION shardyard.check_seal(message text, seal text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $check$
DECLARE
    body   bytea := pg_catalog.convert_to(pg_catalog.pg_backend_pid() || ':' || message, 'UTF8');
    wanted text;
BEGIN
    SELECT pg_catalog.encode(pg_catalog.sha256(s.secret || pg_catalog.sha256(s.secret || body)), 'hex') INTO wanted FROM shardyard.seal s;
    IF wanted IS NULL OR wanted IS DISTINCT FROM seal THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'permission denied: mirrored writes and decisions are the router''s';
    END IF;
END
$check$;

DROP FUNCTION IF EXISTS shardyard.decide(text, text[]);

-- Decides the commit of the transaction that calls it, as whatever role the application works under. The
-- seventh part of the identifier is the id of that transaction: recovery asks Postgres how it stands. The decision
-- must not be lost in a crash: synchronous_commit is at least "on".
CREATE OR REPLACE FUNCTION shardyard.decide(gid text, participants text[], seal text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $decide$
BEGIN
    PERFORM shardyard.check_seal('decide:' || gid || ':' || array_to_string(participants, ','), seal);
    IF split_part(gid, '/', 7) IS DISTINCT FROM pg_current_xact_id_if_assigned()::text THEN
        RAISE EXCEPTION 'transaction % cannot be decided here', gid USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    INSERT INTO shardyard.decision (gid, participants, outcome) VALUES (decide.gid, decide.participants, 'commit');
END
$decide$;

GRANT EXECUTE ON FUNCTION shardyard.decide(text, text[], text) TO PUBLIC;

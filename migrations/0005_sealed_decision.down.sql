DROP FUNCTION IF EXISTS shardyard.decide(text, text[], text);

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

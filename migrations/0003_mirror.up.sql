-- Mirrored writes: triggers on the authority note the keys of changed rows in shardyard.change; the router
-- takes them out in the same transaction (mirror_drain) and writes the current state of the rows on the
-- mirrors (mirror_apply). Both run inside the client's transaction, under the client's role: they are
-- SECURITY DEFINER, and act only on a seal that nobody without the shard's secret can make.

-- The secret of this database on this shard, which the service role alone reads.
CREATE TABLE IF NOT EXISTS shardyard.seal (
    singleton boolean NOT NULL DEFAULT true,
    secret    bytea   NOT NULL,
    CONSTRAINT seal_pkey PRIMARY KEY (singleton),
    CONSTRAINT seal_one_row CHECK (singleton)
);
INSERT INTO shardyard.seal (secret)
VALUES (pg_catalog.decode(pg_catalog.replace(pg_catalog.gen_random_uuid()::text || pg_catalog.gen_random_uuid()::text, '-', ''), 'hex'))
ON CONFLICT (singleton) DO NOTHING;

-- What is mirrored from (source) or to this shard. key: the columns of a unique, not deferrable index.
CREATE TABLE IF NOT EXISTS shardyard.mirror (
    id       text    NOT NULL,
    relation oid     NOT NULL,
    source   boolean NOT NULL,
    key      text[]  NOT NULL,
    CONSTRAINT mirror_pkey PRIMARY KEY (id)
);

-- The outbox: keys of rows that were changed and whose state is not on the mirrors yet.
CREATE TABLE IF NOT EXISTS shardyard.change (
    sequence  bigint  GENERATED ALWAYS AS IDENTITY,
    xact      xid8    NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    mirror    text    NOT NULL,
    old       text[],
    new       text[],
    truncated boolean NOT NULL DEFAULT false,
    CONSTRAINT change_pkey PRIMARY KEY (sequence)
);
CREATE INDEX IF NOT EXISTS change_xact ON shardyard.change (xact);

REVOKE ALL ON TABLE shardyard.seal, shardyard.mirror, shardyard.change FROM PUBLIC;

-- capture(id, query) notes the key of a row, which the query makes of it as a text[] ($1 is the row; no row: it
-- is none of the mirror's). Every writer holds the mirror's advisory lock, shared, until its transaction ends.
-- Keys are text as pg_dump writes it, so that every value comes back as it was.
CREATE OR REPLACE FUNCTION shardyard.capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' SET TimeZone = 'UTC' SET extra_float_digits = 3
SET bytea_output = 'hex' SET lc_monetary = 'C' SET xmloption = 'content'
AS $capture$
DECLARE
    was     text[];
    becomes text[];
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(1936224357, pg_catalog.hashtext(TG_ARGV[0]));
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO shardyard.change (mirror, truncated) VALUES (TG_ARGV[0], true);
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        EXECUTE TG_ARGV[1] INTO was USING OLD;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE TG_ARGV[1] INTO becomes USING NEW;
    END IF;
    IF was = becomes THEN
        was := NULL;
    END IF;
    IF was IS NOT NULL OR becomes IS NOT NULL THEN
        INSERT INTO shardyard.change (mirror, old, new) VALUES (TG_ARGV[0], was, becomes);
    END IF;
    RETURN NULL;
END
$capture$;

-- mirror_guard refuses what would change a mirror by itself. It does not fire for mirror_write.
CREATE OR REPLACE FUNCTION shardyard.mirror_guard() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $guard$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '0A000',
        MESSAGE = pg_catalog.format('cannot change reference table "%s" on this shard', TG_TABLE_NAME),
        DETAIL = 'It is a copy: the table is written on the home shard, and mirrored from there.',
        HINT = 'Change the table in a statement of its own.';
END
$guard$;

-- check_seal raises unless seal was made with the secret for this backend and this message.
CREATE OR REPLACE FUNCTION shardyard.check_seal(message text, seal text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $check$
DECLARE
    body   bytea := pg_catalog.convert_to(pg_catalog.pg_backend_pid() || ':' || message, 'UTF8');
    wanted text;
BEGIN
    SELECT pg_catalog.encode(pg_catalog.sha256(s.secret || pg_catalog.sha256(s.secret || body)), 'hex') INTO wanted FROM shardyard.seal s;
    IF wanted IS DISTINCT FROM seal THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'permission denied: mirrored writes are the router''s';
    END IF;
END
$check$;

-- mirror_shape says how statements on the mirror's table are written. t is a row of the table, n a row as it is
-- to be, k.key its key as text[]. whole: rows can only be replaced, as an identity column cannot be updated. No row
-- where the table is gone.
CREATE OR REPLACE FUNCTION shardyard.mirror_shape(mirror_id text, OUT relation oid, OUT name text, OUT columns text, OUT news text,
    OUT assignments text, OUT proposed text, OUT conflict text, OUT by_key text, OUT by_row text, OUT whole boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $shape$
SELECT m.relation, pg_catalog.format('%I.%I', n.nspname, c.relname), cols.columns, cols.news, cols.assignments, cols.proposed,
    keys.conflict, keys.by_key, keys.by_row, cols.whole
FROM shardyard.mirror m
JOIN pg_catalog.pg_class c ON c.oid = m.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns,
        pg_catalog.string_agg('n.' || pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) AS news,
        pg_catalog.string_agg(pg_catalog.format('%1$I = n.%1$I', a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attidentity <> 'a') AS assignments,
        pg_catalog.string_agg(pg_catalog.format('%1$I = excluded.%1$I', a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attidentity <> 'a') AS proposed,
        pg_catalog.bool_or(a.attidentity = 'a' AND a.attname::text <> ALL (m.key)) OR pg_catalog.bool_and(a.attidentity = 'a') AS whole
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') cols
CROSS JOIN LATERAL (
    SELECT i.indclass, i.indkey FROM pg_catalog.pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
      AND i.indnkeyatts = pg_catalog.cardinality(m.key)
      AND m.key OPERATOR(pg_catalog.@>) ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a, pg_catalog.generate_series(0, i.indnkeyatts - 1) p
          WHERE a.attrelid = c.oid AND a.attnum = i.indkey[p])
    ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1) index
CROSS JOIN LATERAL (
    SELECT pg_catalog.string_agg(pg_catalog.quote_ident(k.name), ', ' ORDER BY k.pos) AS conflict,
        pg_catalog.string_agg(pg_catalog.format('t.%I OPERATOR(%I.%s) (k.key)[%s]::%s', k.name, ns.nspname, o.oprname, k.pos,
            pg_catalog.format_type(a.atttypid, a.atttypmod)), ' AND ' ORDER BY k.pos) AS by_key,
        pg_catalog.string_agg(pg_catalog.format('t.%1$I OPERATOR(%2$I.%3$s) n.%1$I', k.name, ns.nspname, o.oprname), ' AND ' ORDER BY k.pos) AS by_row
    FROM pg_catalog.unnest(m.key) WITH ORDINALITY k(name, pos)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = k.name
    CROSS JOIN LATERAL (SELECT p FROM pg_catalog.generate_series(0, pg_catalog.cardinality(m.key) - 1) p WHERE index.indkey[p] = a.attnum) at
    JOIN pg_catalog.pg_opclass oc ON oc.oid = index.indclass[at.p]
    JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3
    JOIN pg_catalog.pg_operator o ON o.oid = ao.amopopr
    JOIN pg_catalog.pg_namespace ns ON ns.oid = o.oprnamespace) keys
WHERE m.id = mirror_id
$shape$;

-- mirror_state is the current state of the rows with these keys (text[] as text): those that are gone by their
-- keys, those that are there as rows, all as text. NULL where the table is gone.
CREATE OR REPLACE FUNCTION shardyard.mirror_state(mirror_id text, keys text[], truncated boolean) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' SET TimeZone = 'UTC' SET extra_float_digits = 3
SET bytea_output = 'hex' SET lc_monetary = 'C' SET xmloption = 'content'
AS $state$
DECLARE
    shape record;
    gone  json;
    there json;
BEGIN
    SELECT * INTO shape FROM shardyard.mirror_shape(mirror_id);
    IF shape.name IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE pg_catalog.format($q$SELECT pg_catalog.json_agg(k.label) FILTER (WHERE t.tableoid IS NULL),
            pg_catalog.json_agg(pg_catalog.format('%%s', t)) FILTER (WHERE t.tableoid IS NOT NULL)
        FROM (SELECT u.key AS label, u.key::text[] AS key FROM pg_catalog.unnest($1) u(key)) k
        LEFT JOIN ONLY %s t ON %s$q$, shape.name, shape.by_key)
        INTO gone, there USING keys;
    RETURN pg_catalog.replace(pg_catalog.encode(pg_catalog.convert_to(pg_catalog.json_build_object(
        'mirror', mirror_id, 'truncate', truncated, 'gone', gone, 'rows', there)::text, pg_catalog.getdatabaseencoding()), 'base64'), E'\n', '');
END
$state$;

-- mirror_drain takes the changes of the running transaction out of the outbox, at most that many at a time, and
-- gives for each mirror the state of the rows as mirror_apply wants it. No row: the outbox is empty.
CREATE OR REPLACE FUNCTION shardyard.mirror_drain(most int, seal text) RETURNS TABLE (mirror text, payload text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $drain$
DECLARE
    taken record;
BEGIN
    PERFORM shardyard.check_seal('drain', seal);
    FOR taken IN
        WITH changes AS (
            DELETE FROM shardyard.change c WHERE c.sequence IN (
                SELECT x.sequence FROM shardyard.change x WHERE x.xact = pg_catalog.pg_current_xact_id_if_assigned()
                ORDER BY x.sequence LIMIT most)
            RETURNING c.*)
        SELECT c.mirror AS id, pg_catalog.bool_or(c.truncated) AS truncated,
            coalesce(pg_catalog.array_agg(DISTINCT k.key::text) FILTER (WHERE k.key IS NOT NULL), '{}') AS keys
        FROM changes c CROSS JOIN LATERAL (VALUES (c.old), (c.new)) k(key)
        GROUP BY c.mirror ORDER BY c.mirror
    LOOP
        mirror := taken.id;
        payload := shardyard.mirror_state(taken.id, taken.keys, taken.truncated);
        RETURN NEXT;
    END LOOP;
END
$drain$;

-- mirror_enforce lets the checks of foreign keys from tables that are not mirrored themselves fire when a
-- mirror is written: RESTRICT and NO ACTION hold on every shard. It locks the table only if there is one to set.
CREATE OR REPLACE FUNCTION shardyard.mirror_enforce(mirrored oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $enforce$
DECLARE
    check_name name;
BEGIN
    FOR check_name IN
        SELECT t.tgname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint c ON c.oid = t.tgconstraint
        WHERE t.tgrelid = mirrored AND t.tgisinternal AND t.tgenabled = 'O' AND c.contype = 'f' AND c.confrelid = mirrored
          AND c.conrelid NOT IN (SELECT m.relation FROM shardyard.mirror m)
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %I', mirrored::pg_catalog.regclass, check_name);
    END LOOP;
END
$enforce$;

-- mirror_write_part brings one mirror to the state that mirror_state told. A row that is there stays the same
-- row (foreign keys wait for its update, and must find it again); where unique values moved between rows,
-- that cannot be, and the rows are deleted and inserted. Each way is one statement: NO ACTION sees the end.
CREATE OR REPLACE FUNCTION shardyard.mirror_write_part(part json) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $part$
DECLARE
    shape record;
    gone  text[] := ARRAY(SELECT pg_catalog.json_array_elements_text(part->'gone') WHERE pg_catalog.json_typeof(part->'gone') = 'array');
    there text[] := ARRAY(SELECT pg_catalog.json_array_elements_text(part->'rows') WHERE pg_catalog.json_typeof(part->'rows') = 'array');
BEGIN
    SELECT * INTO shape FROM shardyard.mirror_shape(part->>'mirror');
    IF shape.name IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'XX000', MESSAGE = 'mirror ' || (part->>'mirror') || ' is not on this shard';
    END IF;
    PERFORM shardyard.mirror_enforce(shape.relation);
    BEGIN
        IF shape.whole THEN
            RAISE unique_violation;
        END IF;
        EXECUTE pg_catalog.format($q$
            WITH dropped AS (
                DELETE FROM ONLY %1$s t USING (SELECT u::pg_catalog.text[] AS key FROM pg_catalog.unnest($1) u) k WHERE %2$s RETURNING 1),
            changed AS (
                UPDATE ONLY %1$s t SET %3$s FROM pg_catalog.unnest($2::%1$s[]) n
                WHERE (SELECT pg_catalog.count(*) FROM dropped) >= 0 AND %4$s RETURNING 1)
            INSERT INTO %1$s (%5$s) OVERRIDING SYSTEM VALUE SELECT %6$s FROM pg_catalog.unnest($2::%1$s[]) n
            WHERE (SELECT pg_catalog.count(*) FROM changed) >= 0 AND NOT EXISTS (SELECT FROM ONLY %1$s t WHERE %4$s)
            ON CONFLICT (%7$s) DO UPDATE SET %8$s$q$,
            shape.name, shape.by_key, shape.assignments, shape.by_row, shape.columns, shape.news, shape.conflict, shape.proposed)
            USING gone, there;
    EXCEPTION WHEN unique_violation OR exclusion_violation THEN
        EXECUTE pg_catalog.format($q$
            WITH dropped AS (
                DELETE FROM ONLY %1$s t USING (SELECT u::pg_catalog.text[] AS key FROM pg_catalog.unnest($1) u) k WHERE %2$s RETURNING 1),
            replaced AS (
                DELETE FROM ONLY %1$s t USING pg_catalog.unnest($2::%1$s[]) n WHERE %3$s RETURNING 1)
            INSERT INTO %1$s (%4$s) OVERRIDING SYSTEM VALUE SELECT %5$s FROM pg_catalog.unnest($2::%1$s[]) n
            WHERE (SELECT pg_catalog.count(*) FROM dropped) + (SELECT pg_catalog.count(*) FROM replaced) >= 0$q$,
            shape.name, shape.by_key, shape.by_row, shape.columns, shape.news)
            USING gone, there;
    END;
END
$part$;

-- mirror_write applies what mirror_state told; several payloads are separated by commas, and the tables that were
-- truncated are truncated together, as they were. The application's triggers do not fire.
CREATE OR REPLACE FUNCTION shardyard.mirror_write(payloads text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET DateStyle = 'ISO, YMD' SET IntervalStyle = 'postgres' SET TimeZone = 'UTC' SET extra_float_digits = 3
SET bytea_output = 'hex' SET lc_monetary = 'C' SET xmloption = 'content' SET session_replication_role = 'replica'
AS $write$
DECLARE
    parts  json[] := ARRAY(SELECT pg_catalog.convert_from(pg_catalog.decode(p, 'base64'), pg_catalog.getdatabaseencoding())::json
        FROM pg_catalog.unnest(pg_catalog.string_to_array(payloads, ',')) WITH ORDINALITY u(p, pos) ORDER BY u.pos);
    part   json;
    emptied text;
BEGIN
    SELECT pg_catalog.string_agg('ONLY ' || s.name, ', ') INTO emptied
    FROM pg_catalog.unnest(parts) p CROSS JOIN LATERAL shardyard.mirror_shape(p->>'mirror') s WHERE (p->>'truncate')::boolean;
    IF emptied IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || emptied;
    END IF;
    FOREACH part IN ARRAY parts LOOP
        PERFORM shardyard.mirror_write_part(part);
    END LOOP;
END
$write$;

CREATE OR REPLACE FUNCTION shardyard.mirror_apply(payloads text, seal text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $apply$
BEGIN
    PERFORM shardyard.check_seal('apply:' || payloads, seal);
    PERFORM shardyard.mirror_write(payloads);
END
$apply$;

REVOKE ALL ON FUNCTION shardyard.capture(), shardyard.mirror_guard(), shardyard.check_seal(text, text), shardyard.mirror_shape(text),
    shardyard.mirror_state(text, text[], boolean), shardyard.mirror_drain(int, text), shardyard.mirror_enforce(oid),
    shardyard.mirror_write_part(json), shardyard.mirror_write(text), shardyard.mirror_apply(text, text) FROM PUBLIC;
-- The two that the router calls as the client's role.
GRANT EXECUTE ON FUNCTION shardyard.mirror_drain(int, text), shardyard.mirror_apply(text, text) TO PUBLIC;

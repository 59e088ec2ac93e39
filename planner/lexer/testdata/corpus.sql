## One statement a line; \n stands for a newline. All of them parse.
select 1
select 1, 2, 1
select 'a', 'b', 'a'
select 1.5, .5, 1., 1e5, 1.5e-3, 1_000, 0x1F, 0o17, 0b101
select 2147483647, 2147483648, -2147483648, - 2147483649, 9223372036854775807, 9223372036854775808, -9223372036854775808, 99999999999999999999
select -1, - 1, +1, - -1, -(1), 2 - 1, 2-1, a - 1 from t
select * from t where k = 5
SELECT * FROM t WHERE k = 5;
select /* c */ * from t -- c\nwhere k = 5
select /*+ replica */ * from t where k = 5
/*+ replica */ select * from t where k = 5
select * from t where k = $1
select * from t where k = $1 and v = 'x' or k = 7
select * from t where k in (1, 2, 3)
select * from t where k in ('a', 'b', 'a')
select * from t where (k, l) in ((1, 'a'), (2, 'b'))
select * from t where k not in (1, 2)
select * from t where k = any (array[1, 2, 3])
select * from t where k = any ('{1,2,3}'::int[])
select * from t where k = any ($1::int4[]) and v = 2
select * from t where k between 1 and 10
select * from t where k between 'a' and 'b' and v not between 5 and 6
select * from t where k between f(1) and f(2)
select * from t where k between symmetric 10 and 1
select * from t where v like 'a%' and w not ilike '%b' escape '!'
select * from t where v similar to 'a%' or v ~ '^x' or v ~* 'y' or v !~ 'z'
select * from t where v is null and w is not null and x is distinct from 5 and y is not distinct from 'q'
select * from t where b is true or b is not false or b is unknown
select * from t where k = 5 order by 1
select a, b from t order by 1, 2 desc, 3 asc nulls last
select a, b from t order by a + 1, 2 desc nulls first limit 10 offset 20
select a, b from t order by (1), ((2)), (a)
select a, b from t order by 1 + a, 2, f(3), 4
select a, b from t order by -1
select a from t order by a = 5 desc, 1
select a from t order by case when a = 1 then 2 else 3 end, 1
select a from t order by v collate "C", 2 using <
select a from t order by 'x'
select a, count(*) from t group by 1
select a, b, count(*) from t group by 1, 2 having count(*) > 5 order by 3 desc
select a, b from t group by (1), (2)
select a, b from t group by (1, 2)
select a, b, sum(c) from t group by rollup (1, 2)
select a, b, sum(c) from t group by cube (1, (2))
select a, b, sum(c) from t group by grouping sets ((1, 2), (1), ())
select a, b, sum(c) from t group by grouping sets (rollup (1, 2), cube (2), 1), 2
select a, b from t group by distinct rollup (1, 2), rollup (1)
select a, b from t group by all 1, 2
select a + 5, count(*) from t group by a + 5
select a + 5, count(*) from t group by a + 6
select (1) + a from t group by (1) + a
select 1 is null, a from t group by 1 is null, 2
select distinct on (1) a, b from t order by 1, 2
select distinct on (1, (2), a + 3) a, b from t
select distinct on (a) a, b from t where k = 5
select distinct 5, 'x' from t
select all 5 from t
select a from t limit 10
select a from t limit 10 offset 5
select a from t offset 5 rows fetch first 10 rows only
select a from t order by 1 fetch first (5 + 5) rows with ties
select a from t limit all
select a from t limit f(5) offset $1
select a from t for update of t skip locked
select a from t where k = 1 for no key update nowait
select count(*), count(distinct a), count(*) filter (where k = 5), sum(a) filter (where b > 'x') from t
select array_agg(a order by b, 1), string_agg(v, ',' order by v desc) from t
select percentile_cont(0.5) within group (order by a) from t
select rank() over (partition by a order by b), sum(c) over (order by 1 rows between 5 preceding and 3 following) from t
select sum(a) over w from t window w as (partition by f(5) order by b range between unbounded preceding and current row)
select sum(a) over (partition by 5, 'x' order by 2 groups between 1 preceding and 2 following exclude ties) from t
select case when a = 1 then 'one' when a = 2 then 'two' else 'many' end from t
select case a when 1 then 'one' else 'other' end from t where k = 7
select coalesce(a, 5), nullif(a, 0), greatest(1, 2, a), least('a', b) from t
select cast(a as varchar(10)), cast('5' as int), cast(a as numeric(5, 2)), cast(b as geometry(4326)) from t
select a::varchar(10), a::numeric(10,2), a::char(3), a::bit(3), a::bit varying(5), a::character varying(7), a::national character varying(8) from t
select a::timestamp(3), a::timestamp(3) with time zone, a::time(2) without time zone, a::timestamptz(0), a::interval(2), a::interval day to second(3), a::float(24), a::decimal(4), a::dec(4,1) from t
select a::geometry(4326), a::public.geometry(point, 4326), a::"MyType"(5), a::foo.bar(1, 'x') from t
select a::int[], a::int[3], a::int array[4], a::numeric(5,2)[3][4], a::text array from t
select a[1], a[1:2], a[:3], a[2:], a[f(1)], a[1][2], (a)[3], a[b + 1], a[-1] from t
select array[1, 2], array[[1, 2], [3, 4]], array['a', 'b']::text[], array[1] || array[2, 3] from t
select array[5] = any (array[array[5]]), x = array[7] from t
select varchar 'a', date '2026-01-01', timestamp '2026-01-01 00:00:00', timestamp with time zone '2026-01-01 00:00:00+00', time '12:00', interval '1 day', interval '1' day, interval '1:30' hour to minute
select numeric(5,2) '1.5', interval(3) '1 second', f(5) 'x', varchar(3) 'abcd', timestamp(2) '2026-01-01'
select float8 '1.5', int4 '7', "MyType" 'x', pg_catalog.int8 '9', bool 't', json '{}', point '(1,2)'
select interval '1 day' * 5, now() - interval '5 minutes', a + '1 day'::interval from t where at > now() - interval '1 hour'
select 'a''b', '', '''', 'a' || 'b', 'x\y'
select 'a'\n'b'
select 'a'\n   'b'\n'c' where 'abc' = 'abc'
select E'a\tb', e'b\'c', E'\u0041', 'a'
select U&'d\0061t', U&'d!0061t' uescape '!', U&"d\0061t" from t
select B'101', b'1', X'1F', N'abc', n'x' || 'y', nchar 'abc', nchar(5) 'abc'
select n 'abc' from t
select $$a$$, $tag$b$tag$, 'a'
select '2026-01-01'::date, '5'::int + 5, '{"a": 1}'::jsonb -> 'a' ->> 'b' #> '{c,d}', j @> '{"x": 1}', j ? 'k', j ?| array['a', 'b'] from t
select 1 as "Ünï", t."Col", "T"."a""b" from "T" t
select Ä, ä, É1 from Straße where Ä = 'Ö'
select a.b.c, (a).b, (a.b).*, t.* from s.t as a
select extract(year from a), extract('year' from a), extract(epoch from interval '1 day') from t
select substring(a from 2 for 3), substring(a from 'x.*'), position('a' in b), overlay(a placing 'x' from 1 for 2), trim(both 'x' from a), trim(leading from a), trim('x') from t
select a at time zone 'UTC', a at time zone 'Europe/Berlin' at time zone f(5), a at local from t
select a collate "C" < 'x' collate "de_DE" from t
select xmlelement(name foo, xmlattributes(a as b), 'x', 5), xmlforest(a, 'x' as y), xmlpi(name php, 'echo 1') from t
select xmlserialize(content a as varchar(100)), xmlparse(document '<a/>'), xmlexists('/a' passing b) from t
select * from xmltable('/r/x' passing d columns a int path 'a', b varchar(10) path 'b' default 'x', c geometry(4) path 'c', o for ordinality)
select * from json_table(j, '$.a[*]' columns (a int path '$.x', b varchar(5) path '$.y', c geometry(3) path '$.z' default 5 on empty))
select json_value(j, '$.a' returning varchar(5)), json_value(j, '$.b' returning geometry(7) default 5 on error), json_query(j, '$.a' with wrapper), json_exists(j, '$.a') from t
select json_object('a': 1, 'b': 'x' absent on null), json_array(1, 'a', 2), json_arrayagg(a order by 1) from t
select a is json, a is json object with unique keys, json('{}') from t
select * from generate_series(1, 10) g(x) where x > 5
select * from f(1, 'a') as t(a int, b varchar(10), c numeric(5,2), d geometry(4326), e "MyType"(7), f int[3])
select * from rows from (f(1) as (a int, b foo(3)), g(2)) with ordinality as x(a, b, c)
select * from f(1) as (a timestamp(3) with time zone, b foo(9))
select * from lateral f(5) x, lateral (select * from t where k = 5) y
select * from t tablesample bernoulli (10) repeatable (5) where k = 1
select * from t tablesample system(0.5)
select * from a join b on a.id = b.id and b.k = 5 left join c using (id) where a.x = 5
select * from a left join b on a.id = b.id and b.v = 'x' right join c on true full join d on d.x = 1 cross join e natural join f
select * from t, u where t.k = u.k and t.k = 5 and u.k = 5
select * from t, u where t.k = u.k and t.k = 5 and u.k = 6
select * from (select a, 1 as b from t where k = 5) s where b = 1 order by 2
select (select a from u where u.k = 5 order by 1 limit 1), exists (select 1 from u where k = 7), a in (select b from u order by 1) from t order by (select 5), 2
select * from t where exists (select from u where u.k = t.k and u.v = 'x')
select * from t where k = (select max(k) from t where v = 5) and v > all (select 3) and w = some (select 4)
select 1 union select 2 order by 1
select a from t where k = 1 union all select a from t where k = 2 order by 1 limit 5
(select a from t where k = 1 order by 1 limit 2) union all (select a from t where k = 2 order by 1 limit 3) order by 1
((select 1))
(select 5) intersect (select 6) except all select 7 limit 3
select 1 except select 1 intersect all select 2
with x as (select 5 as a) select * from x where a = 5
with x as materialized (select a, 1 from t where k = 5 order by 1), y(b) as not materialized (select 6) select * from x, y where x.a = 5
with recursive r(n) as (values (1) union all select n + 1 from r where n < 100) search depth first by n set o cycle n set c to 'Y' default 'N' using p select * from r
with x as (insert into t values (1, 'a') returning a, 5) select * from x
with x as (update t set v = 5 where k = 1 returning *), y as (delete from u where k = 1 returning 1) select 1 from x, y
values (1, 'a'), (2, 'b'), (1, 'b')
values (1), (2) order by 1 limit 1
insert into t values (1, 'a')
insert into t values (1, 'a'), (2, 'b'), (1, default)
insert into t (k, v) values (5, 'x') returning *, 1, 'y'
insert into t (k, v) values ($1, $2), ($3, 5) on conflict (k) do update set v = excluded.v, n = t.n + 1 where t.k = 5
insert into t (k, v[1], c.f) values (1, 2, 3) on conflict on constraint t_pk do nothing
insert into t as x (k) select 5 union select k from u where v = 'a' on conflict do nothing returning f(5)
insert into t default values
insert into t overriding system value values (1)
insert into s."T" (a, "B") values (-5, -5.5), (- 5, +7)
insert into t values (1, '2026-01-01', date '2026-01-01', interval '1 day', null, true, 1.5, E'x')
insert into t values (5, 5.0, '5', 5, '5', 5.0)
update t set v = 5 where k = 5
update t set v = 'a', (b, c) = (1, 'x'), d = default, e = (select 5 from u where k = 6) where k in (7, 8) returning *
update only t as x set v = v + 1, a[1] = 5, a[2:3] = '{1,2}', c.f = 'x' from u where u.k = x.k and u.v = 'y'
update t set (a, b) = row (1, 2), (c) = (select 3) where current of cur
update t set v = v::numeric(5,2) + 1.25 where k = 1 and v > 1.25
delete from t where k = 5
delete from only t using u, v where t.k = u.k and u.v = 'x' returning t.*
merge into t using u on t.k = u.k and u.v = 5 when matched and t.v > 7 then update set v = 'x' when not matched then insert (k, v) values (1, 'y') when not matched by source then delete
merge into t using (values (1, 'a')) s(k, v) on t.k = s.k when matched then do nothing when not matched then insert values (s.k, 5) returning t.*
table t
select into_ from t
select 5 into u from t where k = 5
select a into temp u from t
select * from t where a operator(pg_catalog.+) 5 = 6 and a @@ 'x' and not b
select !!5, @ -5, |/ 25.0, a << 2, a >> 3, a & 1, a | 2, a # 3, ~a, a ^ 2, a % 3, a <> 4, a != 4, a >= 5, a <= 6 from t
select a=-1, a>-1, a<-1, a*-1, a- -1, a-(-1) from t
select row(1, 'a'), (1, 'a'), (row(a, 5)).*, (row(1, 2)) = (1, 2) from t
select * from t where row(a, b) < row(5, 'x') and (c, d) overlaps (e, f)
select grouping(a), a from t group by grouping sets (a, ()) having grouping(a) = 1
select f(a => 5, b := 'x'), g(variadic array[1, 2]), h(distinct 5), count(all 6) from t
select current_date, current_timestamp(3), localtime(2), localtimestamp(1), current_user, session_user, user
select nextval('s'), currval('s'::regclass), setval('s', 5, true), pg_sleep(0.1), left('abc', 2), right(v, 3) from t
select to_char(a, 'YYYY-MM-DD'), date_trunc('day', a), date_part('year', a), a::date - '2026-01-01'::date from t
select format('%s %s', 'a', 5), concat_ws(',', 1, '2'), regexp_replace(a, 'x', 'y', 'g') from t
select second(5), bpchar(a), varbit('101'), timestamptz('2026-01-01') from t
select second from t where second = 5 and minute = 6
select interval from t
select by, value, values, name from t group by value, by, name, values
select a as by from t as by(x) order by f(5), by
select * from t as value where value.k = 5 and value.values = 6
select 'a' as between, 5 as "select" from t
select between.x from (select 1 as x) as between
select char_length('x'), char 'x', character 'y', "char" 'z', dec '1', bit '1', float '1.5', time with time zone '12:00+00'
select 1 where 5 = 5
set search_path to 'a', 'b'
set work_mem = 5
set time zone interval '5' hour to minute
set time zone '+05:30'
set local statement_timeout = '5s'
show work_mem
begin isolation level serializable
commit and chain
savepoint a
rollback to savepoint a
prepare p (int, varchar(10)) as select * from t where k = $1 and v = 5
execute p(5, 'x')
deallocate p
declare c cursor with hold for select * from t where k = 5
fetch 5 from c
fetch forward all from c
move backward 7 in c
explain (analyze, buffers off) select * from t where k = 5
copy t (a, b) to stdout with (format csv, delimiter '|', null 'N')
copy (select * from t where k = 5) to stdout
create table t (k int primary key, v varchar(10) default 'x', n numeric(5,2) check (n > 5), at timestamp(3) default '2026-01-01')
create table t2 partition of t for values from (1) to (10)
create table t3 as select 5 as a, 'x' as b
alter table t add column c int default 5, alter column v type varchar(20)
create index on t using btree (a desc, (lower(b))) where k > 5
create view v as select * from t where k = 5
create function f(a int default 5) returns int language sql as $$ select 1; select $1 $$
create function f(a int) returns int language sql begin atomic select 1; select case when a = 1 then 2 end; end
create or replace procedure p() begin atomic insert into t values (1); end
create rule r as on insert to t do (insert into u values (1); delete from v where k = 5)
create type e as enum ('a', 'b')
create domain d as varchar(5) check (value <> 'x')
create sequence s start 5 increment 2
do $$ begin perform 1; end $$
call p(5, 'x')
listen ch
notify ch, 'x'
lock table t in share mode
truncate t, u restart identity cascade
vacuum (analyze, parallel 2) t
grant select on t to u
comment on table t is 'x'

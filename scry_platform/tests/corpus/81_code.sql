-- What only a superuser may make, and the platform's superuser makes all the same, because it adds
-- nothing to what the server or an extension brings.
CREATE EXTENSION unaccent;

-- Functions over the server's and an extension's code.
CREATE FUNCTION shop.plus_one(int) RETURNS int LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE COST 3 AS 'int4inc';
CREATE FUNCTION shop.f_unaccent(dict regdictionary, t text) RETURNS text LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS '$libdir/unaccent', 'unaccent_dict';
COMMENT ON FUNCTION shop.f_unaccent(regdictionary, text) IS 'immutable';
CREATE FUNCTION shop.row_no() RETURNS bigint LANGUAGE internal WINDOW IMMUTABLE AS 'window_row_number';
CREATE FUNCTION shop.silent(text) RETURNS text LANGUAGE sql IMMUTABLE LEAKPROOF AS 'SELECT $1';
CREATE FUNCTION shop.silent_too(a text DEFAULT E' LANGUAGE sql\n LEAKPROOF') RETURNS text
    LANGUAGE plpgsql STABLE LEAKPROOF PARALLEL RESTRICTED SET search_path TO '' AS $$ BEGIN RETURN a || ' LEAKPROOF'; END $$;
COMMENT ON FUNCTION shop.silent(text) IS 'leakproof';
CREATE FUNCTION shop.series(int, int) RETURNS SETOF int LANGUAGE internal IMMUTABLE STRICT ROWS 7 AS 'generate_series_int4';
CREATE FUNCTION shop.supported(int, int) RETURNS SETOF int LANGUAGE sql IMMUTABLE STRICT COST 8 ROWS 9 LEAKPROOF
    SUPPORT generate_series_int4_support AS 'SELECT pg_catalog.generate_series($1, $2)';
CREATE TABLE shop.searchable (id int PRIMARY KEY, t text DEFAULT shop.silent('x'));
CREATE INDEX searchable_plain ON shop.searchable (shop.f_unaccent('unaccent', t));

-- A base type that is like one of the server's, with all that hangs on it.
CREATE TYPE shop.money8;
CREATE FUNCTION shop.money8_in(cstring) RETURNS shop.money8 LANGUAGE internal IMMUTABLE STRICT AS 'int8in';
CREATE FUNCTION shop.money8_out(shop.money8) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int8out';
CREATE FUNCTION shop.money8_recv(internal) RETURNS shop.money8 LANGUAGE internal IMMUTABLE STRICT AS 'int8recv';
CREATE FUNCTION shop.money8_send(shop.money8) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS 'int8send';
CREATE TYPE shop.money8 (INPUT = shop.money8_in, OUTPUT = shop.money8_out, RECEIVE = shop.money8_recv, SEND = shop.money8_send,
    LIKE = int8, CATEGORY = 'N', DEFAULT = '7');
COMMENT ON TYPE shop.money8 IS 'a base type';
CREATE FUNCTION shop.money8_cmp(shop.money8, shop.money8) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'btint8cmp';
CREATE FUNCTION shop.money8_lt(shop.money8, shop.money8) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int8lt';
CREATE FUNCTION shop.money8_le(shop.money8, shop.money8) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int8le';
CREATE FUNCTION shop.money8_eq(shop.money8, shop.money8) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int8eq';
CREATE FUNCTION shop.money8_ge(shop.money8, shop.money8) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int8ge';
CREATE FUNCTION shop.money8_gt(shop.money8, shop.money8) RETURNS boolean LANGUAGE internal IMMUTABLE STRICT AS 'int8gt';
CREATE FUNCTION shop.money8_hash(shop.money8) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'hashint8';
CREATE FUNCTION shop.money8_hash_extended(shop.money8, bigint) RETURNS bigint LANGUAGE internal IMMUTABLE STRICT AS 'hashint8extended';
CREATE OPERATOR shop.< (FUNCTION = shop.money8_lt, LEFTARG = shop.money8, RIGHTARG = shop.money8,
    COMMUTATOR = OPERATOR(shop.>), NEGATOR = OPERATOR(shop.>=), RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR shop.<= (FUNCTION = shop.money8_le, LEFTARG = shop.money8, RIGHTARG = shop.money8, COMMUTATOR = OPERATOR(shop.>=));
CREATE OPERATOR shop.= (FUNCTION = shop.money8_eq, LEFTARG = shop.money8, RIGHTARG = shop.money8, COMMUTATOR = OPERATOR(shop.=),
    RESTRICT = eqsel, JOIN = eqjoinsel, MERGES, HASHES);
CREATE OPERATOR shop.>= (FUNCTION = shop.money8_ge, LEFTARG = shop.money8, RIGHTARG = shop.money8, COMMUTATOR = OPERATOR(shop.<=));
CREATE OPERATOR shop.> (FUNCTION = shop.money8_gt, LEFTARG = shop.money8, RIGHTARG = shop.money8);
CREATE OPERATOR CLASS shop.money8_ops DEFAULT FOR TYPE shop.money8 USING btree AS
    OPERATOR 1 shop.<, OPERATOR 2 shop.<=, OPERATOR 3 shop.=, OPERATOR 4 shop.>=, OPERATOR 5 shop.>,
    FUNCTION 1 shop.money8_cmp(shop.money8, shop.money8), FUNCTION 4 btequalimage(oid);
CREATE OPERATOR CLASS shop.money8_hash_ops DEFAULT FOR TYPE shop.money8 USING hash AS
    OPERATOR 1 shop.=, FUNCTION 1 shop.money8_hash(shop.money8), FUNCTION 2 shop.money8_hash_extended(shop.money8, bigint);
COMMENT ON OPERATOR CLASS shop.money8_ops USING btree IS 'a class';
COMMENT ON OPERATOR FAMILY shop.money8_ops USING btree IS 'a family';
CREATE CAST (bigint AS shop.money8) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (shop.money8 AS bigint) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE TABLE shop.priced (m shop.money8 PRIMARY KEY, ms shop.money8[] DEFAULT '{1,2}') PARTITION BY RANGE (m);
CREATE TABLE shop.priced_1 PARTITION OF shop.priced FOR VALUES FROM ('1') TO ('100');
INSERT INTO shop.priced (m) VALUES ('5'), ('7');
CREATE TYPE shop.money8_range AS RANGE (SUBTYPE = shop.money8, SUBTYPE_OPCLASS = shop.money8_ops);
CREATE TYPE shop.only_a_name;

-- Operator classes and families over other types.
CREATE FUNCTION shop.backwards(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($2, $1)';
CREATE OPERATOR CLASS shop.backwards_ops FOR TYPE int USING btree AS
    OPERATOR 1 > , OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 shop.backwards(int, int);
CREATE INDEX users_backwards ON shop.users (other shop.backwards_ops);
CREATE OPERATOR FAMILY shop.loose USING btree;
CREATE OPERATOR CLASS shop.loose_ops FOR TYPE int USING btree FAMILY shop.loose AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int),
    FUNCTION 2 btint4sortsupport(internal), FUNCTION 3 in_range(int, int, int, boolean, boolean);
ALTER OPERATOR FAMILY shop.loose USING btree ADD OPERATOR 1 <(int, bigint), OPERATOR 3 =(int, bigint),
    FUNCTION 1 btint48cmp(int, bigint);
CREATE OPERATOR FAMILY shop.nobodys USING hash;
CREATE OPERATOR CLASS shop.part_ops FOR TYPE int USING hash AS OPERATOR 1 =, FUNCTION 2 hashint4extended(int, bigint);
CREATE TABLE shop.by_class (a int) PARTITION BY HASH (a shop.part_ops);
CREATE TABLE shop.by_class_0 PARTITION OF shop.by_class FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE OPERATOR CLASS shop.boxes FOR TYPE box USING gist AS
    OPERATOR 3 &&, OPERATOR 7 @>, OPERATOR 15 <-> (box, point) FOR ORDER BY float_ops,
    FUNCTION 1 gist_box_consistent(internal, box, smallint, oid, internal), FUNCTION 2 gist_box_union(internal, internal),
    FUNCTION 5 gist_box_penalty(internal, internal, internal), FUNCTION 6 gist_box_picksplit(internal, internal),
    FUNCTION 7 gist_box_same(box, box, internal), FUNCTION 8 gist_box_distance(internal, box, smallint, oid, internal);
CREATE OPERATOR CLASS shop.json_paths FOR TYPE jsonb USING gin AS
    OPERATOR 7 @>, FUNCTION 1 btint4cmp(int, int), FUNCTION 2 gin_extract_jsonb_path(jsonb, internal, internal),
    FUNCTION 3 gin_extract_jsonb_query_path(jsonb, internal, smallint, internal, internal, internal, internal),
    FUNCTION 4 gin_consistent_jsonb_path(internal, smallint, jsonb, int, internal, internal, internal, internal),
    STORAGE int;
CREATE TABLE shop.boxed (id int PRIMARY KEY, b box, j jsonb);
CREATE INDEX boxed_gist ON shop.boxed USING gist (b shop.boxes);
CREATE INDEX boxed_gin ON shop.boxed USING gin (j shop.json_paths) WITH (fastupdate = off);
CREATE INDEX boxed_spgist ON shop.boxed USING spgist (b);
CREATE INDEX boxed_brin ON shop.boxed USING brin (id int4_minmax_multi_ops (values_per_range = 16), b) WITH (pages_per_range = 3);

-- Aggregates whose state is the server's own.
CREATE AGGREGATE shop.mid(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal,
    FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
CREATE AGGREGATE shop.would_rank(VARIADIC "any" ORDER BY VARIADIC "any") (SFUNC = ordered_set_transition_multi, STYPE = internal,
    FINALFUNC = rank_final, FINALFUNC_EXTRA, HYPOTHETICAL);
CREATE AGGREGATE shop.middle(bigint) (SFUNC = int8_avg_accum, STYPE = internal, SSPACE = 48, FINALFUNC = numeric_poly_avg,
    COMBINEFUNC = int8_avg_combine, SERIALFUNC = int8_avg_serialize, DESERIALFUNC = int8_avg_deserialize, PARALLEL = SAFE);
COMMENT ON AGGREGATE shop.mid(float8 ORDER BY anyelement) IS 'in the middle';
CREATE VIEW shop.middles AS SELECT shop.mid(0.5) WITHIN GROUP (ORDER BY name) AS m, shop.middle(id) AS n FROM shop.users;

-- Casts between types of the server.
CREATE CAST (point AS text) WITH INOUT AS ASSIGNMENT;
CREATE FUNCTION shop.day_number(date) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 - date ''1970-01-01''';
CREATE CAST (date AS int) WITH FUNCTION shop.day_number(date);
COMMENT ON CAST (date AS int) IS 'days';
CREATE VIEW shop.by_cast AS SELECT born::int AS day FROM shop.users;

CREATE TRUSTED LANGUAGE plshop HANDLER plpgsql_call_handler INLINE plpgsql_inline_handler VALIDATOR plpgsql_validator;
COMMENT ON LANGUAGE plshop IS 'plpgsql under another name';
CREATE FUNCTION shop.in_plshop() RETURNS int LANGUAGE plshop AS $$ BEGIN RETURN 1; END $$;
CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD other_heap IS 'heap under another name';
CREATE TABLE shop.other_stored (id int PRIMARY KEY) USING other_heap;
CREATE MATERIALIZED VIEW shop.other_matview USING other_heap AS SELECT id FROM shop.other_stored;
CREATE CONVERSION shop.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
COMMENT ON CONVERSION shop.conv IS 'a conversion';

CREATE TEXT SEARCH PARSER shop.own_parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end,
    LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
CREATE TEXT SEARCH TEMPLATE shop.own_template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY shop.own_dictionary (TEMPLATE = shop.own_template, accept = false);
CREATE TEXT SEARCH CONFIGURATION shop.own_configuration (PARSER = shop.own_parser);
ALTER TEXT SEARCH CONFIGURATION shop.own_configuration ADD MAPPING FOR asciiword WITH shop.own_dictionary, simple;
COMMENT ON TEXT SEARCH PARSER shop.own_parser IS 'a parser';
COMMENT ON TEXT SEARCH TEMPLATE shop.own_template IS 'a template';

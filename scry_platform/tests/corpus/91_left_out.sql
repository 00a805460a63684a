-- What is left out, and what depends on it.
CREATE FUNCTION shop.in_c(anyelement) RETURNS anyelement LANGUAGE internal AS 'int4_sum';
CREATE FUNCTION shop.text_as_int(text, text) RETURNS int LANGUAGE internal IMMUTABLE STRICT AS 'btint4cmp';
CREATE OPERATOR CLASS shop.wrong_ops FOR TYPE int USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 (int, int) bttextcmp(text, text);
CREATE OPERATOR CLASS shop.mixed_ops FOR TYPE box USING gist AS
    OPERATOR 3 &&, FUNCTION 1 gist_box_consistent(internal, box, smallint, oid, internal), FUNCTION 2 gist_box_union(internal, internal),
    FUNCTION 5 gist_box_penalty(internal, internal, internal), FUNCTION 6 gist_box_picksplit(internal, internal),
    FUNCTION 7 gist_circle_compress(internal);
CREATE TYPE shop.odd;
CREATE FUNCTION shop.odd_in(cstring) RETURNS shop.odd LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION shop.odd_out(shop.odd) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int8out';
CREATE TYPE shop.odd (INPUT = shop.odd_in, OUTPUT = shop.odd_out, LIKE = int8);
CREATE AGGREGATE shop.mixed(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal,
    FINALFUNC = percentile_cont_float8_final);
CREATE CAST (xml AS bytea) WITHOUT FUNCTION;
CREATE FUNCTION shop.to_lsn(int) RETURNS pg_lsn LANGUAGE sql IMMUTABLE AS 'SELECT NULL::pg_lsn';
CREATE CAST (int AS pg_lsn) WITH FUNCTION shop.to_lsn(int) AS IMPLICIT;
CREATE LANGUAGE plfree HANDLER plpgsql_call_handler;
CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
CREATE VIEW shop.over_in_c AS SELECT shop.in_c(1) AS x;
ALTER TABLE shop.users FORCE ROW LEVEL SECURITY;
CREATE TRIGGER always_on AFTER INSERT ON shop.audit EXECUTE FUNCTION shop.note_change();
ALTER TABLE shop.audit ENABLE ALWAYS TRIGGER always_on;
CREATE PUBLICATION everything FOR ALL TABLES;
SELECT lo_create(0);
CREATE EXTENSION postgres_fdw;
CREATE SERVER loopback FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'example.com');
CREATE FOREIGN TABLE shop.over_loopback (a int) SERVER loopback OPTIONS (table_name 't');
CREATE EXTENSION pgstattuple;

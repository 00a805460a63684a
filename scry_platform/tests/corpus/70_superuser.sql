-- What only a superuser may create, and what depends on it.
CREATE AGGREGATE shop.mid(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal,
    FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
CREATE FUNCTION shop.silent(text) RETURNS text LANGUAGE sql IMMUTABLE LEAKPROOF AS 'SELECT $1';
COMMENT ON FUNCTION shop.silent(text) IS 'leakproof';
CREATE FUNCTION shop.in_c(anyelement) RETURNS anyelement LANGUAGE internal AS 'int4_sum';
CREATE VIEW shop.over_silent AS SELECT shop.silent('x') AS x;
ALTER TABLE shop.users FORCE ROW LEVEL SECURITY;
CREATE TRIGGER always_on AFTER INSERT ON shop.audit EXECUTE FUNCTION shop.note_change();
ALTER TABLE shop.audit ENABLE ALWAYS TRIGGER always_on;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE shop.far_table (a int) SERVER far;
CREATE VIEW shop.far_view AS SELECT a FROM shop.far_table;
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE CONVERSION shop.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE OPERATOR FAMILY shop.family USING btree;
CREATE UNLOGGED TABLE shop.unlogged (a serial);
SELECT lo_create(0);
CREATE EXTENSION file_fdw;
CREATE EXTENSION pgstattuple;

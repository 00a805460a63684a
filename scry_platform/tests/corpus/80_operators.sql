-- Operators, casts, text search.
CREATE FUNCTION shop.state_lt(shop.state, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1::text < $2';
CREATE FUNCTION shop.state_gt(text, shop.state) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > $2::text';
CREATE FUNCTION shop.state_ge(shop.state, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1::text >= $2';
CREATE OPERATOR shop.<<< (FUNCTION = shop.state_lt, LEFTARG = shop.state, RIGHTARG = text,
    COMMUTATOR = OPERATOR(shop.>>>), NEGATOR = OPERATOR(shop.>=>), RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR shop.>>> (FUNCTION = shop.state_gt, LEFTARG = text, RIGHTARG = shop.state, COMMUTATOR = OPERATOR(shop.<<<));
CREATE OPERATOR shop.>=> (FUNCTION = shop.state_ge, LEFTARG = shop.state, RIGHTARG = text, NEGATOR = OPERATOR(shop.<<<));
CREATE FUNCTION shop.not_state(shop.state) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE OPERATOR shop.!! (FUNCTION = shop.not_state, RIGHTARG = shop.state);
COMMENT ON OPERATOR shop.!! (NONE, shop.state) IS 'prefix';
CREATE VIEW shop.by_operator AS SELECT id FROM shop.all_types WHERE a OPERATOR(shop.<<<) 'x' OR OPERATOR(shop.!!) a;
CREATE INDEX by_operator_index ON shop.all_types ((a OPERATOR(shop.<<<) 'new'));
CREATE FUNCTION shop.state_to_int(shop.state) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE CAST (shop.state AS int) WITH FUNCTION shop.state_to_int(shop.state) AS ASSIGNMENT;
CREATE CAST (shop.address AS shop.state) WITH INOUT;
COMMENT ON CAST (shop.state AS int) IS 'a cast';
CREATE TEXT SEARCH DICTIONARY shop."dict""ionary" (TEMPLATE = snowball, LANGUAGE = 'german', StopWords = 'german');
CREATE TEXT SEARCH DICTIONARY shop.plain_dict (TEMPLATE = pg_catalog.simple);
COMMENT ON TEXT SEARCH DICTIONARY shop.plain_dict IS 'a dictionary';
CREATE TEXT SEARCH CONFIGURATION shop.config (PARSER = "default");
ALTER TEXT SEARCH CONFIGURATION shop.config ADD MAPPING FOR asciiword, word WITH shop.plain_dict, shop."dict""ionary";
ALTER TEXT SEARCH CONFIGURATION shop.config ADD MAPPING FOR "numword" WITH pg_catalog.simple;
COMMENT ON TEXT SEARCH CONFIGURATION shop.config IS 'a configuration';
CREATE TABLE shop.searched (t text, v tsvector GENERATED ALWAYS AS (to_tsvector('shop.config', t)) STORED);
CREATE INDEX searched_gin ON shop.searched USING gin (v) WITH (fastupdate = off);

-- Types, domains, ranges, collations, extensions.
CREATE SCHEMA shop;
CREATE SCHEMA ext;
COMMENT ON SCHEMA shop IS 'where things are sold; it''s "the" schema';
CREATE EXTENSION btree_gist WITH SCHEMA ext;
CREATE EXTENSION citext;
CREATE EXTENSION hstore WITH SCHEMA ext;

CREATE TYPE shop.state AS ENUM ('new', 'it''s paid', 'back\slash', 'zurück', '');
ALTER TYPE shop.state ADD VALUE 'between' BEFORE 'zurück';
COMMENT ON TYPE shop.state IS 'states';
CREATE TYPE shop.nothing AS ENUM ();

CREATE COLLATION shop.plain (PROVIDER = libc, LC_COLLATE = 'C', LC_CTYPE = 'C');
CREATE COLLATION shop.loose (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
COMMENT ON COLLATION shop.loose IS 'case does not matter';

CREATE DOMAIN shop.amount AS numeric(12,2) DEFAULT 0.00 NOT NULL
    CONSTRAINT positive CHECK (VALUE >= 0) CHECK (VALUE < 1000000);
COMMENT ON DOMAIN shop.amount IS 'money';
COMMENT ON CONSTRAINT positive ON DOMAIN shop.amount IS 'never below nothing';
CREATE DOMAIN shop.small_amount AS shop.amount CHECK (VALUE < 100);
CREATE DOMAIN shop.word AS text COLLATE shop.plain DEFAULT 'it''s';
CREATE DOMAIN shop.late AS int;
ALTER DOMAIN shop.late ADD CONSTRAINT not_yet CHECK (VALUE > 5) NOT VALID;
CREATE DOMAIN shop.ints AS int[] CHECK (array_length(VALUE, 1) < 10);

-- A domain whose check calls a function that takes the domain's base.
CREATE FUNCTION shop.is_even(i int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 2 = 0';
CREATE DOMAIN shop.even AS int CHECK (shop.is_even(VALUE));

CREATE TYPE shop.address AS (street text, "House No" int, zip varchar(10) COLLATE "C", states shop.state[]);
COMMENT ON TYPE shop.address IS 'address';
COMMENT ON COLUMN shop.address."House No" IS 'with letter';
CREATE TYPE shop.empty AS ();
CREATE TYPE shop.party AS (name shop.word, home shop.address);

CREATE TYPE shop.floats AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi);
CREATE TYPE shop.words AS RANGE (SUBTYPE = text, COLLATION = "C", MULTIRANGE_TYPE_NAME = shop.many_words);
COMMENT ON TYPE shop.floats IS 'floats';

CREATE TABLE shop.all_types (
    id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
    a shop.state DEFAULT 'new'::shop.state,
    b shop.state[],
    c shop.amount,
    d shop.small_amount[],
    e shop.address,
    f shop.party[],
    g shop.floats,
    h shop.many_words DEFAULT '{}',
    i citext,
    j ext.hstore DEFAULT '"a"=>"b"',
    k varchar(20) COLLATE "C" DEFAULT 'x' NOT NULL,
    l numeric(10,3), m timestamp(3) with time zone DEFAULT '2020-01-01 00:00:00+00',
    n interval(2) DEFAULT '1 day', o bit(5) DEFAULT B'10101', p bit varying(7),
    q char(3), r "char", s time(1), t interval day to second(3),
    u xml, v jsonb DEFAULT '{"a": "b"}', w bytea DEFAULT '\x00ff', x int4range, y datemultirange,
    z shop.even, aa shop.ints, ab shop.word, ac shop.late, ad shop.nothing, ae point[][],
    af text COLLATE shop.loose
);

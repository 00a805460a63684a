-- What start() and the others refuse for other reasons than the tables.

SELECT scry_backfill.start('users', mode => 'fast');
SELECT scry_backfill.start('users', mode => 'hybird');
SELECT scry_backfill.start('users', mode => 'cdc');
SELECT scry_backfill.start('users', job => '');
SELECT scry_backfill.start('users', job => repeat('x', 64));
SELECT scry_backfill.start('users', job => E'a\nb');
SELECT scry_backfill.start('users', options => '[]');
SELECT scry_backfill.start('users', options => '{"speed": 1}');
SELECT scry_backfill.start('users', options => '{"exlude": ["a"]}');
SELECT scry_backfill.start('users', options => '{"exclude": 7}');
SELECT scry_backfill.start('users', options => '{"exclude": ["a", 7]}');
SELECT scry_backfill.start('users', options => '{"exclude": ["a b"]}');
SELECT scry_backfill.start('users', options => '{"keyless": "maybe"}');
SELECT scry_backfill.start('users', options => '{"endpoint": "https://elsewhere"}');
SELECT scry_backfill.start('users', options => '{"rows_per_second": -5}');
SELECT scry_backfill.start(NULL);

-- There is no job yet.
SELECT scry_backfill.stop();
SELECT scry_backfill.stop('nobody');
SELECT scry_backfill.pause('nobody');
SELECT scry_backfill.resume('nobody');
SELECT scry_backfill.wait_for_shadow('nobody');

-- No endpoint.
ALTER SYSTEM SET scry_backfill.endpoint = '';
SELECT pg_reload_conf();
SELECT pg_sleep(0.2);
\c -
SELECT scry_backfill.start('users');
SELECT level, object, finding FROM scry_backfill.check('users') WHERE object = 'server';
ALTER SYSTEM RESET scry_backfill.endpoint;
SELECT pg_reload_conf();
SELECT pg_sleep(0.2);
\c -

-- Other encodings.
CREATE DATABASE scry_latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
\c scry_latin1
CREATE EXTENSION scry_backfill;
CREATE TABLE t (id int PRIMARY KEY);
SELECT scry_backfill.start('t');
\c regression
DROP DATABASE scry_latin1;

-- A job's life as far as it goes without a platform.

SELECT * FROM scry_backfill.start('users', job => 'one');
SELECT * FROM scry_backfill.start('users', job => 'one');
SELECT * FROM scry_backfill.start('orders', job => 'two', mode => 'snapshot');
SELECT job, mode, mode_reason, tables, tables_copied, slot_name IS NULL AS no_slot
FROM scry_backfill.status ORDER BY job;
SELECT job, schema_name, table_name, state, replica_identity FROM scry_backfill.tables;
SELECT job, schema_name, table_name, state, percent FROM scry_backfill.progress;

-- Unknown names are told with the known ones.
SELECT scry_backfill.stop('on');
SELECT scry_backfill.stop('elsewhere');

-- The extension stays while a job does.
DROP EXTENSION scry_backfill;
DROP SCHEMA scry_backfill CASCADE;

-- Nobody answers: false, at the end of the time.
SELECT scry_backfill.wait_for_shadow('one', '50 ms');

SELECT scry_backfill.pause('one');
SELECT state FROM scry_backfill.status WHERE job = 'one';
SELECT scry_backfill.pause('one');
SELECT scry_backfill.wait_for_shadow('one', '50 ms');
SELECT * FROM scry_backfill.start('users', job => 'one');

-- What a transaction takes back has not happened.
BEGIN;
SELECT scry_backfill.resume('one');
ROLLBACK;
SELECT state FROM scry_backfill.status WHERE job = 'one';
SELECT scry_backfill.resume('one');
SELECT state <> 'paused' AS goes_on FROM scry_backfill.status WHERE job = 'one';

BEGIN;
SELECT scry_backfill.stop('two');
ROLLBACK;
SELECT state <> 'stopped' AS goes_on FROM scry_backfill.status WHERE job = 'two';

SELECT scry_backfill.stop('one');
SELECT scry_backfill.stop('two');
SELECT scry_backfill.stop('two');
SELECT job, state FROM scry_backfill.status ORDER BY job;
SELECT scry_backfill.pause('one');
SELECT scry_backfill.resume('one');
SELECT scry_backfill.wait_for_shadow('one', '50 ms');
SELECT job, level, message FROM scry_backfill.events WHERE job = 'one' AND level = 'info' ORDER BY at, message;
SELECT count(*) FROM pg_replication_slots;

-- The same name again is another job.
SELECT * FROM scry_backfill.start('orders', job => 'two');
SELECT job, mode, tables FROM scry_backfill.status WHERE job = 'two';
SELECT scry_backfill.stop('two', drop_slot => false);

-- Many starts and stops leave nothing.
DO $$
BEGIN
    FOR i IN 1 .. 20 LOOP
        PERFORM scry_backfill.start('users', job => 'again');
        PERFORM scry_backfill.stop('again');
    END LOOP;
END $$;
SELECT count(*) FROM pg_replication_slots;

-- check() says the same as start().
SELECT level, object, finding FROM scry_backfill.check('users,keyless') WHERE object <> 'sender';
SELECT level, object, finding, remedy FROM scry_backfill.check('invoices') WHERE object <> 'sender';
SELECT level, object, finding FROM scry_backfill.check('ordres') WHERE object <> 'sender';
CREATE TYPE pair AS (a int, b int);
CREATE TABLE typed (id int PRIMARY KEY, p pair);
SELECT level, object, finding FROM scry_backfill.check('typed') WHERE object <> 'sender';

DROP EXTENSION scry_backfill;
CREATE EXTENSION scry_backfill;
SELECT count(*) FROM scry_backfill.job;

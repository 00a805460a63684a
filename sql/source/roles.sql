-- What an operator and a monitor of the jobs of a database may do. Run by
-- scry_backfill.create_roles(), as its caller, once it has made sure that the
-- two roles are its own; with other roles' names, by hand. Nothing here is
-- granted to PUBLIC, and none of it lets anybody read a table: start() asks for
-- SELECT on each table besides.

GRANT USAGE ON SCHEMA scry_backfill TO scry_backfill_operator, scry_backfill_monitor;

-- Read status: the views, and what they read from shared memory.
GRANT SELECT ON scry_backfill.status, scry_backfill.progress, scry_backfill.tables, scry_backfill.events
    TO scry_backfill_operator, scry_backfill_monitor;
GRANT EXECUTE ON FUNCTION scry_backfill.live_jobs, scry_backfill.live_copies, scry_backfill.live_sender,
    scry_backfill.live_pace, scry_backfill.recent_events
    TO scry_backfill_operator, scry_backfill_monitor;

-- Operate.
GRANT EXECUTE ON FUNCTION scry_backfill.start, scry_backfill.stop, scry_backfill.pause, scry_backfill.resume,
    scry_backfill.add_table, scry_backfill.drop_table, scry_backfill.resync, scry_backfill.wait_for_shadow,
    scry_backfill.verify, scry_backfill."check"
    TO scry_backfill_operator;

-- Foreign data and event triggers: there by name and shape, without effect.
CREATE FOREIGN DATA WRAPPER nowhere OPTIONS (a 'it''s');
COMMENT ON FOREIGN DATA WRAPPER nowhere IS 'nowhere';
CREATE SERVER far TYPE 'a type' VERSION '1.0' FOREIGN DATA WRAPPER nowhere OPTIONS (host 'example.com', "Quoted ""name""" 'x');
COMMENT ON SERVER far IS 'far';
CREATE SERVER plain_server FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE shop.far_table (
    a int OPTIONS (column_name 'A''s') NOT NULL, b text COLLATE "C" DEFAULT 'b', c int GENERATED ALWAYS AS (a * 2) STORED,
    CONSTRAINT positive CHECK (a > 0)) SERVER far OPTIONS (schema_name 's', table_name 'T"T');
ALTER FOREIGN TABLE shop.far_table ADD COLUMN gone int, ADD COLUMN d shop.state;
ALTER FOREIGN TABLE shop.far_table DROP COLUMN gone;
ALTER FOREIGN TABLE shop.far_table ALTER COLUMN b SET STATISTICS 50;
COMMENT ON FOREIGN TABLE shop.far_table IS 'a far table';
COMMENT ON COLUMN shop.far_table.a IS 'a far column';
CREATE FOREIGN TABLE shop.far_child (more int) INHERITS (shop.parent_a) SERVER far;
CREATE TABLE shop.empty_without_key (id int, v text) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE shop.far_part PARTITION OF shop.empty_without_key FOR VALUES FROM (1) TO (10) SERVER far;
CREATE VIEW shop.far_view AS SELECT a, b FROM shop.far_table;
CREATE TRIGGER far_trigger AFTER INSERT ON shop.far_table FOR EACH ROW EXECUTE FUNCTION shop.note_change();
CREATE FUNCTION shop.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', tg_tag; END $$;
CREATE EVENT TRIGGER "on ""ddl""" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP FUNCTION') EXECUTE FUNCTION shop.on_ddl();
CREATE EVENT TRIGGER on_drop ON sql_drop EXECUTE FUNCTION shop.on_ddl();
ALTER EVENT TRIGGER on_drop DISABLE;
CREATE EVENT TRIGGER on_rewrite ON table_rewrite EXECUTE FUNCTION shop.on_ddl();
ALTER EVENT TRIGGER on_rewrite ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER on_drop IS 'off';
CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'me', password 'secret of ours');

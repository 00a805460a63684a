-- Triggers, rules, row security.
CREATE FUNCTION shop.note_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION shop.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER after_row AFTER INSERT OR UPDATE OF name, email OR DELETE ON shop.users
    FOR EACH ROW WHEN (pg_trigger_depth() < 1) EXECUTE FUNCTION shop.note_change('arg', 'it''s', E'\\x');
CREATE TRIGGER before_row BEFORE UPDATE ON shop.users FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name) EXECUTE FUNCTION shop.keep();
CREATE TRIGGER statement_level AFTER UPDATE ON shop.orders REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION shop.note_change();
CREATE TRIGGER on_truncate BEFORE TRUNCATE ON shop.orders EXECUTE FUNCTION shop.note_change();
CREATE TRIGGER switched_off BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.keep();
ALTER TABLE shop.orders DISABLE TRIGGER switched_off;
CREATE CONSTRAINT TRIGGER checked AFTER INSERT ON shop.orders FROM shop.users DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION shop.note_change();
CREATE TRIGGER "on part""s" AFTER INSERT ON shop.events FOR EACH ROW EXECUTE FUNCTION shop.note_change();
ALTER TABLE shop.events_2020_a DISABLE TRIGGER "on part""s";
CREATE TRIGGER instead INSTEAD OF INSERT ON shop.active FOR EACH ROW EXECUTE FUNCTION shop.keep();
COMMENT ON TRIGGER after_row ON shop.users IS 'a trigger';

CREATE RULE log_it AS ON INSERT TO shop.audit DO ALSO NOTIFY audit;
CREATE RULE no_delete AS ON DELETE TO shop.audit WHERE OLD.id < 10 DO INSTEAD NOTHING;
ALTER TABLE shop.audit DISABLE RULE no_delete;
CREATE RULE by_view AS ON UPDATE TO shop.active DO INSTEAD UPDATE shop.users SET name = NEW.name WHERE id = OLD.id;
COMMENT ON RULE log_it ON shop.audit IS 'a rule';

ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.orders FOR SELECT TO PUBLIC USING (user_id = 5);
CREATE POLICY "by role" ON shop.orders AS RESTRICTIVE FOR UPDATE TO corpus_reader, CURRENT_USER
    USING (EXISTS (SELECT FROM shop.users AS u WHERE u.id = user_id)) WITH CHECK (shop.is_even(id));
CREATE POLICY everything ON shop.audit WITH CHECK (true);
COMMENT ON POLICY own ON shop.orders IS 'a policy';
CREATE TRIGGER off_everywhere AFTER UPDATE ON shop.events FOR EACH ROW EXECUTE FUNCTION shop.note_change();
ALTER TABLE shop.events DISABLE TRIGGER off_everywhere;
ALTER TABLE shop.events_2020_rest_0 ENABLE TRIGGER off_everywhere;

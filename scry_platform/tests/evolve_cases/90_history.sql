--- a shop over the years
CREATE TABLE c.users (id serial PRIMARY KEY, name varchar(50) NOT NULL, email text);
--=
INSERT INTO c.users (name, email) SELECT 'user ' || i, 'u' || i || '@example.com' FROM generate_series(1, 40) AS i;
--
ALTER TABLE c.users ADD CONSTRAINT users_email_key UNIQUE (email); CREATE INDEX users_name ON c.users (lower(name));
--
CREATE TABLE c.orders (id bigserial PRIMARY KEY, user_id int NOT NULL REFERENCES c.users, total numeric(10,2) NOT NULL DEFAULT 0, state text NOT NULL DEFAULT 'new');
--=
INSERT INTO c.orders (user_id, total, state) SELECT 1 + i % 40, i, CASE WHEN i % 3 = 0 THEN 'paid' ELSE 'new' END FROM generate_series(1, 200) AS i;
--
CREATE TYPE c.order_state AS ENUM ('new', 'paid', 'sent');
--
ALTER TABLE c.orders ADD COLUMN state2 c.order_state;
--=
UPDATE c.orders SET state2 = state::c.order_state;
--
ALTER TABLE c.orders DROP COLUMN state; ALTER TABLE c.orders RENAME COLUMN state2 TO state; ALTER TABLE c.orders ALTER COLUMN state SET NOT NULL, ALTER COLUMN state SET DEFAULT 'new';
--
ALTER TYPE c.order_state ADD VALUE 'returned'; ALTER TYPE c.order_state ADD VALUE 'packed' BEFORE 'sent';
--=
UPDATE c.orders SET state = 'packed' WHERE id < 20; DELETE FROM c.orders WHERE id = 7;
--
CREATE VIEW c.open_orders AS SELECT o.id, u.name, o.total FROM c.orders AS o JOIN c.users AS u ON u.id = o.user_id WHERE o.state = 'new';
--
ALTER TABLE c.users ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
--
DROP VIEW c.open_orders; ALTER TABLE c.users ALTER COLUMN name TYPE text; CREATE VIEW c.open_orders AS SELECT o.id, u.name, o.total FROM c.orders AS o JOIN c.users AS u ON u.id = o.user_id WHERE o.state = 'new';
--=
INSERT INTO c.users (name, email, created_at) VALUES ('late', 'late@example.com', '2020-01-01 00:00+00');
--
ALTER TABLE c.users RENAME TO accounts;
--
ALTER TABLE c.orders RENAME COLUMN user_id TO account_id; ALTER SEQUENCE c.users_id_seq RENAME TO accounts_id_seq; ALTER INDEX c.users_pkey RENAME TO accounts_pkey;
--
CREATE FUNCTION c.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$; ALTER TABLE c.accounts ADD COLUMN updated_at timestamptz; CREATE TRIGGER touch BEFORE UPDATE ON c.accounts FOR EACH ROW EXECUTE FUNCTION c.touch();
--
CREATE TABLE c.order_lines (order_id bigint NOT NULL REFERENCES c.orders ON DELETE CASCADE, line int NOT NULL, sku text NOT NULL, amount int NOT NULL CHECK (amount > 0), price numeric(8,2) NOT NULL, sum numeric GENERATED ALWAYS AS (amount * price) STORED, PRIMARY KEY (order_id, line));
--=
INSERT INTO c.order_lines (order_id, line, sku, amount, price) SELECT id, 1, 'sku' || id, 1 + id % 5, 2.5 FROM c.orders ORDER BY id LIMIT 100;
--
CREATE MATERIALIZED VIEW c.totals AS SELECT order_id, sum(sum) AS total FROM c.order_lines GROUP BY order_id; CREATE UNIQUE INDEX totals_order ON c.totals (order_id);
--
CREATE DOMAIN c.sku AS text CHECK (VALUE ~ '^sku'); DROP MATERIALIZED VIEW c.totals; ALTER TABLE c.order_lines ALTER COLUMN sku TYPE c.sku; CREATE MATERIALIZED VIEW c.totals AS SELECT order_id, sum(sum) AS total, count(*) AS lines FROM c.order_lines GROUP BY order_id;
--
ALTER TABLE c.order_lines DROP COLUMN sum CASCADE;
--- a shop with archives
CREATE TABLE c.log (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL, what text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
--
CREATE TABLE c.log_2020 PARTITION OF c.log FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2021-01-01 00:00+00'); CREATE TABLE c.log_2021 PARTITION OF c.log FOR VALUES FROM ('2021-01-01 00:00+00') TO ('2022-01-01 00:00+00');
--=
INSERT INTO c.log (at, what) SELECT timestamptz '2020-03-01 00:00+00' + i * interval '5 days', 'w' || i FROM generate_series(1, 100) AS i;
--
CREATE INDEX log_what ON c.log (what);
--
ALTER TABLE c.log ADD COLUMN level int NOT NULL DEFAULT 3;
--
CREATE SCHEMA archive; ALTER TABLE c.log DETACH PARTITION c.log_2020; ALTER TABLE c.log_2020 SET SCHEMA archive;
--
ALTER TABLE archive.log_2020 RENAME TO log_old; ALTER TABLE archive.log_old DROP COLUMN level;
--
CREATE TABLE c.log_default PARTITION OF c.log DEFAULT;
--=
INSERT INTO c.log (at, what) VALUES ('2030-01-01 00:00+00', 'future');
--
ALTER TABLE c.log RENAME COLUMN what TO message; ALTER TABLE c.log ALTER COLUMN level DROP DEFAULT;
--
CREATE VIEW c.all_log AS SELECT id, at, message FROM c.log UNION ALL SELECT id, at, what FROM archive.log_old;
--
ALTER TABLE c.log ADD CONSTRAINT level_ok CHECK (level BETWEEN 0 AND 9) NOT VALID;
--
ALTER TABLE c.log VALIDATE CONSTRAINT level_ok;
--
CREATE STATISTICS c.log_stats ON level, message FROM c.log; COMMENT ON TABLE c.log IS 'what happened';
--
DROP VIEW c.all_log; DROP TABLE archive.log_old; DROP SCHEMA archive;
--
ALTER TABLE c.log_default RENAME TO log_rest; DROP INDEX c.log_what; CREATE INDEX log_message ON c.log (message text_pattern_ops);

--- objects that need each other go together
CREATE VIEW c.v AS SELECT 1 AS a; CREATE TABLE c.log (o c.v, n c.v);
CREATE RULE r AS ON UPDATE TO c.v DO ALSO INSERT INTO c.log VALUES (old, new);
CREATE TABLE c.t (id int PRIMARY KEY, a int); CREATE TABLE c.u (id int PRIMARY KEY);
CREATE FUNCTION c.f(c.t) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.a > 0';
ALTER TABLE c.t ADD CONSTRAINT positive CHECK (c.f(t.*));
CREATE FUNCTION c.g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER called BEFORE INSERT ON c.t FOR EACH ROW WHEN (c.f(NEW.*)) EXECUTE FUNCTION c.g();
CREATE POLICY p ON c.t USING (EXISTS (SELECT FROM c.u)); CREATE POLICY p ON c.u USING (EXISTS (SELECT FROM c.t))
--=
INSERT INTO c.t VALUES (1, 1)
--
DROP TABLE c.log CASCADE; DROP VIEW c.v
--
CREATE VIEW c.v AS SELECT 2 AS a; CREATE TABLE c.log (o c.v); CREATE RULE r AS ON UPDATE TO c.v DO ALSO INSERT INTO c.log VALUES (old)
--
DROP TABLE c.t, c.u CASCADE

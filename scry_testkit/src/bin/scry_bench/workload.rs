//! The tables that are copied and followed. Every value is a function of the
//! row's number, so that two runs have the same data.

/// Documents: uuid, timestamp, numeric, array, jsonb and text with NULLs, quotes and
/// other alphabets; one row in fifty has a note of 10 kB, which stands in TOAST.
/// `:docs` is their number.
pub const DOCS: &str = r#"
CREATE TABLE docs (
    id bigint PRIMARY KEY, owner uuid, created timestamptz, amount numeric(12,2),
    tags text[], body jsonb, note text);
INSERT INTO docs
SELECT i,
       CASE WHEN a % 40 > 0 THEN md5('owner' || b % 5000)::uuid END,
       timestamptz '2024-01-01 00:00:00+00' + (a % 70000000) * interval '1 second' + (b % 1000000) * interval '1 us',
       CASE WHEN b % 20 > 0 THEN round((a % 1000000007) / 97.0, 2) - 20000 END,
       CASE c % 10 WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE (ARRAY['new', 'écho', 'urgent, "very"', 'draft', 'lima', 'golf'])[1 + a % 4 : 1 + a % 4 + b % 3] END,
       CASE WHEN d % 50 > 0 THEN jsonb_build_object(
           'title', 'Document ' || i, 'status', (ARRAY['open', 'paid', 'sent'])[1 + c % 3], 'views', a % 100000,
           'score', round((b % 100000) / 7.0, 3), 'active', c % 2 = 0,
           'address', jsonb_build_object('city', (ARRAY['Paris', 'Zürich', '東京', 'Oslo'])[1 + d % 4], 'zip', lpad((d % 100000)::text, 5, '0')),
           'items', jsonb_build_array(jsonb_build_object('sku', left(h, 8), 'qty', a % 9), jsonb_build_object('sku', right(h, 8), 'qty', b % 9))) END,
       CASE WHEN i % 50 = 7 THEN (SELECT string_agg(md5(h || n), '') FROM generate_series(1, 320) n)
            WHEN c % 10 < 3 THEN NULL
            WHEN c % 10 = 4 THEN E'tab\there, "quote", back\\slash,\nnew line ' || h
            ELSE 'Note ' || i || ', € ' || b % 1000 || repeat(' lorem', 5 + (d % 7)::int) END
FROM generate_series(1, :docs) i
CROSS JOIN LATERAL (
    SELECT md5(i::text) h, hashint8extended(i, 1) & 2147483647 a, hashint8extended(i, 2) & 2147483647 b,
           hashint8extended(i, 3) & 2147483647 c, hashint8extended(i, 4) & 2147483647 d) x;
"#;

/// The wide table of the spread workload.
pub const SPREAD_TABLE: &str = "CREATE TABLE spread(
    id bigint PRIMARY KEY, owner uuid, at timestamptz, amount numeric(12,2), tags text[],
    doc jsonb, note text, body text, n bigint);";

/// Its first rows: every second key of a million; one row in fifty has 10 kB in TOAST.
pub const SPREAD_ROWS: &str = "INSERT INTO spread
    SELECT i * 2, md5(i::text)::uuid, now(), i / 7.0, ARRAY['a', 'b'], jsonb_build_object('k', i, 'open', true),
           repeat('y', 100), CASE WHEN i % 50 = 0 THEN (SELECT string_agg(md5(i::text || n), '') FROM generate_series(1, 320) n) END, i
    FROM generate_series(1, 500000) i;";

/// The work of the spread workload, for pgbench: over keys far apart, a third inserts (some
/// with TOAST), half updates that leave TOAST unchanged or write it, the rest deletes.
pub const SPREAD_WORK: &str = "
\\set k random(1, 1000000)
\\set op random(1, 20)
\\if :op <= 7
INSERT INTO spread VALUES (:k, md5(:k::text)::uuid, now(), :k / 7.0, ARRAY['a', 'b'], jsonb_build_object('k', :k, 'open', true), repeat('x', 100), NULL, :k) ON CONFLICT (id) DO NOTHING;
\\elif :op <= 8
INSERT INTO spread VALUES (:k, md5(:k::text)::uuid, now(), :k / 7.0, ARRAY['a'], '{}', 'long', (SELECT string_agg(md5(:k::text || n), '') FROM generate_series(1, 320) n), :k) ON CONFLICT (id) DO NOTHING;
\\elif :op <= 15
UPDATE spread SET at = now(), n = n + 1 WHERE id = :k;
\\elif :op <= 16
UPDATE spread SET doc = doc || '{\"open\": false}', amount = amount + 1, tags = tags || 'c'::text WHERE id = :k;
\\else
DELETE FROM spread WHERE id = :k;
\\endif
";

/// Statements that make so many tables, each with a key and another index, and run `fill` for each.
pub fn small_tables(count: u64, fill: bool) -> String {
    let rows = "EXECUTE format('INSERT INTO small_%s SELECT i, now(), md5(i::text) FROM generate_series(1, 20) i', n);";
    format!(
        "DO $$ BEGIN FOR n IN 1..{count} LOOP
             EXECUTE format('CREATE TABLE small_%s(id int PRIMARY KEY, at timestamptz, v text)', n);
             EXECUTE format('CREATE INDEX ON small_%s(at)', n);
             {}
         END LOOP; END $$;",
        if fill { rows } else { "" }
    )
}

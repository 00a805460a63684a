//! Which extensions the platform's superuser creates because a source asks for them.
//!
//! The source is not trusted: whoever owns a database there names the extension. Those of this
//! list give a plain role nothing beyond its own database. Untrusted languages, readers
//! of files and openers of connections are not on it. Any other extension works too: once
//! it was created on the shadow by hand, it is found there. (What is marked trusted on
//! the shadow is created by the shadow's own role, without this list.)

/// The superuser may create the extension of this name.
pub(super) fn superuser_may_create(name: &str) -> bool {
    ALLOWED.contains(&name)
}

const ALLOWED: &[&str] = &[
    // PostgreSQL's own.
    "amcheck",
    "autoinc",
    "bloom",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "insert_username",
    "intagg",
    "intarray",
    "isn",
    "lo",
    "ltree",
    "moddatetime",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_trgm",
    "pg_visibility",
    "pg_walinspect",
    "pgcrypto",
    "pgrowlocks",
    "pgstattuple",
    "plpgsql",
    "refint",
    "seg",
    "sslinfo",
    "tablefunc",
    "tcn",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
    "xml2",
    // Types and indexes of others.
    "address_standardizer",
    "address_standardizer_data_us",
    "debversion",
    "h3",
    "h3_postgis",
    "hll",
    "ip4r",
    "pg_uuidv7",
    "pgvector",
    "postgis",
    "postgis_raster",
    "postgis_sfcgal",
    "postgis_tiger_geocoder",
    "postgis_topology",
    "prefix",
    "q3c",
    "rum",
    "semver",
    "topn",
    "unit",
    "vector",
];

#[cfg(test)]
mod tests {
    use super::superuser_may_create;

    #[test]
    fn no_way_out_of_the_database() {
        for name in ["plpython3u", "plperlu", "pltclu", "file_fdw", "dblink", "postgres_fdw", "adminpack"] {
            assert!(!superuser_may_create(name), "{name}");
        }
        assert!(superuser_may_create("btree_gist"));
    }
}

//! The `tables` argument: comma-separated names and globs, quoted as in SQL.
//!
//! `orders, public."Order Items", shop.*, *` — unquoted text is folded to
//! lower case and may hold `*` and `?`; inside double quotes every character
//! stands for itself. Pure: text in, patterns out.

use super::refusal::Refusal;

/// One part of a name: literal characters and wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Any,
}

/// A name or glob of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePattern {
    /// The schema, if one is given.
    pub schema: Option<Pattern>,
    /// The table.
    pub table: Pattern,
    /// As the user wrote it.
    pub text: String,
}

impl Pattern {
    /// The name, if there is no wildcard in it.
    pub fn exact(&self) -> Option<String> {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Literal(c) => Some(*c),
                Piece::One | Piece::Any => None,
            })
            .collect()
    }

    /// Whether `name` fits.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        matches_from(&self.0, &name)
    }

    fn is_all(&self) -> bool {
        self.0 == [Piece::Any]
    }
}

/// Greedy with one point to come back to: linear for one star, never exponential.
fn matches_from(pieces: &[Piece], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pieces.get(p) {
            Some(Piece::Any) => {
                retry = Some((p, n));
                p += 1;
                continue;
            }
            Some(Piece::One) => {
                p += 1;
                n += 1;
                continue;
            }
            Some(Piece::Literal(c)) if name.get(n) == Some(c) => {
                p += 1;
                n += 1;
                continue;
            }
            _ => {}
        }
        let Some((star, at)) = retry else { return false };
        retry = Some((star, at + 1));
        p = star + 1;
        n = at + 1;
    }
    pieces.get(p..).unwrap_or_default().iter().all(|piece| *piece == Piece::Any)
}

impl TablePattern {
    /// Schema and name, if neither has a wildcard.
    pub fn exact(&self) -> Option<(Option<String>, String)> {
        let table = self.table.exact()?;
        match &self.schema {
            None => Some((None, table)),
            Some(schema) => Some((Some(schema.exact()?), table)),
        }
    }

    /// As the user wrote it, in double quotes for a message if it has none.
    pub fn quoted(&self) -> String {
        if self.text.contains('"') { self.text.clone() } else { format!("\"{}\"", self.text) }
    }

    /// `*` alone: all tables of the database.
    pub fn is_everything(&self) -> bool {
        self.table.is_all() && self.schema.as_ref().is_none_or(Pattern::is_all)
    }
}

/// Splits and reads the list.
pub fn parse(text: &str) -> Result<Vec<TablePattern>, Refusal> {
    let mut reader = Reader { chars: text.chars().collect(), at: 0 };
    let mut patterns = Vec::new();
    reader.skip_space();
    if reader.peek().is_none() {
        return Err(Refusal::invalid("no table is named")
            .hint("Name tables as 'orders, users', globs as 'public.*', or '*' for all tables."));
    }
    loop {
        patterns.push(reader.table()?);
        reader.skip_space();
        match reader.next() {
            None => return Ok(patterns),
            Some(',') => {}
            Some(other) => {
                return Err(syntax(&format!(
                    "unexpected character \"{other}\" after \"{}\"",
                    last(&patterns)
                )));
            }
        }
    }
}

fn last(patterns: &[TablePattern]) -> &str {
    patterns.last().map_or("", |pattern| pattern.text.as_str())
}

fn syntax(problem: &str) -> Refusal {
    Refusal::new(
        pgrx::PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
        format!("could not read the list of tables: {problem}"),
    )
    .hint("Separate names by commas; write a name with other characters than letters, digits and _ in double quotes.")
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += 1;
        Some(next)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn table(&mut self) -> Result<TablePattern, Refusal> {
        self.skip_space();
        let start = self.at;
        let mut parts = vec![self.part()?];
        while self.peek() == Some('.') {
            self.at += 1;
            parts.push(self.part()?);
        }
        let text: String = self.chars.get(start..self.at).unwrap_or_default().iter().collect();
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(table), None, _) => Ok(TablePattern { schema: None, table, text }),
            (Some(schema), Some(table), None) => Ok(TablePattern { schema: Some(schema), table, text }),
            _ => Err(syntax(&format!("\"{text}\" has more parts than schema and table"))),
        }
    }

    fn part(&mut self) -> Result<Pattern, Refusal> {
        let mut pieces = Vec::new();
        let quoted = self.peek() == Some('"');
        if quoted {
            self.at += 1;
            loop {
                match self.next() {
                    Some('"') if self.peek() == Some('"') => {
                        self.at += 1;
                        pieces.push(Piece::Literal('"'));
                    }
                    Some('"') => break,
                    Some(c) => pieces.push(Piece::Literal(c)),
                    None => return Err(syntax("a double quote (\") is not closed")),
                }
            }
        } else {
            while let Some(c) = self.peek() {
                let piece = match c {
                    '*' => Piece::Any,
                    '?' => Piece::One,
                    // As the server folds: ASCII letters only in UTF-8.
                    _ if c.is_ascii_alphanumeric()
                        || c == '_'
                        || c == '$'
                        || !c.is_ascii() && !c.is_whitespace() =>
                    {
                        Piece::Literal(c.to_ascii_lowercase())
                    }
                    _ => break,
                };
                pieces.push(piece);
                self.at += 1;
            }
        }
        if pieces.is_empty() && quoted {
            return Err(syntax("a name in double quotes is empty"));
        }
        if pieces.is_empty() {
            let found = self.peek().map_or("the end".to_owned(), |c| format!("\"{c}\""));
            return Err(syntax(&format!("expected a table's name, found {found}")));
        }
        Ok(Pattern(pieces))
    }
}

/// Names among `known` that look like `name`, nearest first, at most three.
pub fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted: Vec<char> = name.to_lowercase().chars().collect();
    let limit = (wanted.len() / 3).clamp(1, 4);
    let mut found: Vec<(usize, &str)> = known
        .filter_map(|known| {
            let candidate: Vec<char> = known.to_lowercase().chars().collect();
            if candidate.len().abs_diff(wanted.len()) > limit {
                return None;
            }
            let distance = edit_distance(&wanted, &candidate);
            (distance <= limit).then_some((distance, known))
        })
        .collect();
    found.sort_unstable();
    found.dedup_by_key(|(_, known)| *known);
    found.truncate(3);
    found.into_iter().map(|(_, known)| known).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours between two names.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost =
                (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    at(&last, b.len())
}

#[cfg(test)]
mod tests {
    use super::{near, parse};

    fn exact(text: &str) -> Vec<(Option<String>, String)> {
        parse(text).unwrap().iter().map(|pattern| pattern.exact().unwrap()).collect()
    }

    #[test]
    fn reads_names_quoted_as_in_sql() {
        assert_eq!(
            exact("Orders , shop.users"),
            [(None, "orders".to_owned()), (Some("shop".to_owned()), "users".to_owned())]
        );
        assert_eq!(
            exact("\"Order, \"\"Items\"\"\".\"*\""),
            [(Some("Order, \"Items\"".to_owned()), "*".to_owned())]
        );
    }

    #[test]
    fn reads_globs() {
        let patterns = parse("public.*, ord?r_*").unwrap();
        assert!(patterns[0].schema.as_ref().unwrap().matches("public") && patterns[0].table.matches("x"));
        assert!(patterns[1].table.matches("order_items") && !patterns[1].table.matches("orders"));
        assert!(parse("*").unwrap()[0].is_everything() && !patterns[0].is_everything());
        assert!(parse("a*b*c").unwrap()[0].table.matches("aXbYbZc"));
    }

    #[test]
    fn rejects_what_is_no_list() {
        for text in ["", "  ", "a,", ",a", "a b", "a.b.c", "\"a", "a..b", "a;drop", "\"\""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn finds_near_names() {
        let known = ["orders", "users", "order_items", "products"];
        assert_eq!(near("ordres", known.into_iter()), ["orders"]);
        assert_eq!(near("user", known.into_iter()), ["users"]);
        assert!(near("nothing_like_it", known.into_iter()).is_empty());
    }
}

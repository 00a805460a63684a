//! Several ways of doing the same work, one right after another, in rounds;
//! each round begins with another of them. What counts are the ratios within a round.

use crate::measure::{Figures, PARTS, Part};
use crate::setting;
use anyhow::{Result, bail, ensure};

/// One way of doing the work.
pub struct Contender<'a> {
    pub name: String,
    pub run: Box<dyn Fn() -> Result<Figures> + 'a>,
}

impl<'a> Contender<'a> {
    pub fn new(name: &str, run: impl Fn() -> Result<Figures> + 'a) -> Self {
        Contender { name: name.to_owned(), run: Box::new(run) }
    }
}

/// How many rounds a race has.
pub fn rounds() -> u64 {
    setting("BENCH_ROUNDS", 3).max(1)
}

/// What is raced over.
pub struct Work<'a> {
    pub name: &'a str,
    pub unit: &'a str,
    pub amount: u64,
}

/// Without the contenders that `BENCH_AGAINST` leaves out: it names those that stay beside
/// ours by their beginnings, apart by commas.
fn chosen<'a, 'b>(contenders: &'a [Contender<'b>]) -> Vec<&'a Contender<'b>> {
    let against = std::env::var("BENCH_AGAINST").ok();
    let stays = |(i, contender): (usize, &'a Contender<'b>)| {
        let is_named = |list: &String| list.split(',').any(|name| contender.name.starts_with(name.trim()));
        (i == 0 || against.as_ref().is_none_or(is_named)).then_some(contender)
    };
    contenders.iter().enumerate().filter_map(stays).collect()
}

/// Has all of them do the work, `prepare` before each round, and prints the
/// table. The first one is ours. Their figures, by round.
pub fn race(
    work: &Work<'_>,
    contenders: &[Contender<'_>],
    mut prepare: impl FnMut() -> Result<()>,
) -> Result<Vec<Vec<Figures>>> {
    let contenders = chosen(contenders);
    let mut rounds_of: Vec<Vec<Figures>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds() as usize {
        prepare()?;
        for turn in 0..contenders.len() {
            let which = (round + turn) % contenders.len();
            if let (Some(contender), Some(figures)) = (contenders.get(which), rounds_of.get_mut(which)) {
                eprintln!("{}, round {}: {}", work.name, round + 1, contender.name);
                figures.push((contender.run)()?);
            }
        }
    }
    print(work, &contenders, &rounds_of)?;
    Ok(rounds_of)
}

fn print(work: &Work<'_>, contenders: &[&Contender<'_>], all: &[Vec<Figures>]) -> Result<()> {
    let Some(ours) = all.first() else { return Ok(()) };
    ensure!(!ours.is_empty(), "nothing was measured");
    println!("\n### {}: {} {}, {} rounds\n", work.name, work.amount, work.unit, ours.len());
    println!(
        "| | wall s, min / median / max | our speed over it | {0}/s | source cpu s | shadow cpu s | programs cpu s | \
         its source's cpu over ours | private MB: source | shadow | programs |",
        work.unit
    );
    println!("|---|---|---|--:|--:|--:|--:|---|--:|--:|--:|");
    for (contender, figures) in contenders.iter().zip(all) {
        let wall = |f: &Figures| f.wall.as_secs_f64();
        let source = |f: &Figures| f.cpu_of(Part::Source);
        let ratio = |pick: fn(&Figures) -> f64| {
            let of = |(ours, it): (&Figures, &Figures)| pick(it) / pick(ours).max(0.01);
            spread(ours.iter().zip(figures).map(of).collect())
        };
        let walls: Vec<f64> = figures.iter().map(wall).collect();
        let median_wall = median(&walls);
        print!("| {} | {} | {} ", contender.name, spread(walls), ratio(wall));
        print!("| {:.0} ", work.amount as f64 / median_wall.max(0.001));
        for part in PARTS {
            print!("| {:.2} ", median(&figures.iter().map(|f| f.cpu_of(part)).collect::<Vec<_>>()));
        }
        print!("| {} ", ratio(source));
        for part in PARTS {
            let most = figures.iter().filter_map(|f| f.memory.get(part as usize)).max();
            print!("| {} ", most.copied().unwrap_or_default() >> 20);
        }
        println!("|");
    }
    Ok(())
}

/// Prints what a unit costs among more of them, by the medians of ours: each element is what a
/// race gave and its amount, the smaller one first.
pub fn print_growth(races: &[(Vec<Vec<Figures>>, u64)]) -> Result<()> {
    let cost = |(figures, amount): &(Vec<Vec<Figures>>, u64), pick: fn(&Figures) -> f64| {
        let ours: Vec<f64> = figures.iter().take(1).flatten().map(pick).collect();
        median(&ours) / *amount as f64
    };
    let [small, large] = races else { bail!("two races are compared") };
    let ratio = |pick| cost(large, pick) / cost(small, pick);
    println!(
        "\namong {:.0} times as many one costs {:.2} of the time and {:.2} of the cpu",
        large.1 as f64 / small.1 as f64,
        ratio(|f| f.wall.as_secs_f64()),
        ratio(Figures::cpu_of_all)
    );
    Ok(())
}

/// The smallest, the median and the largest.
pub fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} / {:.2} / {:.2}", at(&values, 0.0), at(&values, 0.5), at(&values, 1.0))
}

/// The median.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    at(&sorted, 0.5)
}

/// What so large a share of sorted values does not exceed.
pub fn at(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_sorted_values() {
        let values = vec![3.0, 1.0, 2.0];
        assert_eq!(median(&values), 2.0);
        assert_eq!(spread(values), "1.00 / 2.00 / 3.00");
        assert_eq!(at(&[], 0.5), 0.0);
    }
}

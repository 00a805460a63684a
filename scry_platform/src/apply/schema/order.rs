//! The order of creation: topological, with a kind's rank to choose among the free.
//!
//! A cycle is cut where something can stand in for the real thing: a view by a view of the
//! same columns without a query, a range type by a shell. Where nothing can, the node of
//! the lowest rank goes first and takes its chance (function bodies are not checked).
//!
//! What it does not do: read SQL; dependencies are those of the document.

use super::plan::Step;
use scry_wire::catalog::ObjectId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// A step with what it needs.
#[derive(Debug)]
pub(super) struct Node {
    /// The object that exists once it is done.
    pub provides: Option<ObjectId>,
    /// What must exist before.
    pub depends_on: Vec<ObjectId>,
    /// Lower goes first among the free.
    pub rank: u8,
    /// It cannot be made before the data.
    pub late: bool,
    /// It is made before the data only if something there needs it.
    pub lazy: bool,
    /// What can stand in for it, to cut a cycle.
    pub stand_in: Option<Step>,
    /// Where it belongs; set by [`sort`].
    pub slot: Slot,
    /// What to do.
    pub step: Step,
}

/// Before or after the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Pre,
    Post,
}

/// Puts nodes into an order in which each finds what it needs, and each into its slot.
pub(super) fn sort(nodes: Vec<Node>) -> Vec<Node> {
    let needs = edges(&nodes);
    let (order, stand_ins) = topological(&nodes, &needs);
    let Split { slots, wanted } = split(&nodes, &needs, &order);
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    let mut sorted = Vec::with_capacity(nodes.len());
    for place in order {
        let (index, is_stand_in) = match place {
            Place::Real(index) => (index, false),
            Place::StandIn(index) => (index, true),
        };
        let slot = slots.get(index).copied().unwrap_or(Slot::Post);
        if is_stand_in {
            // It may be needed before the data where the real thing must wait.
            let slot = if wanted.get(index) == Some(&true) { Slot::Pre } else { slot };
            let stand_in = nodes.get(index).and_then(Option::as_ref).and_then(|n| n.stand_in.clone());
            sorted.extend(stand_in.map(|step| plain(step, slot)));
        } else if let Some(mut node) = nodes.get_mut(index).and_then(Option::take) {
            node.slot = slot;
            if stand_ins.contains(&index) {
                // The stand-in is undone instead: it was there first.
                node.step.undo = None;
            }
            sorted.push(node);
        }
    }
    sorted
}

fn plain(step: Step, slot: Slot) -> Node {
    Node {
        provides: None,
        depends_on: Vec::new(),
        rank: 0,
        late: false,
        lazy: false,
        stand_in: None,
        slot,
        step,
    }
}

/// For each node, the nodes that it needs.
fn edges(nodes: &[Node]) -> Vec<Vec<usize>> {
    let provider: HashMap<ObjectId, usize> =
        nodes.iter().enumerate().filter_map(|(index, node)| Some((node.provides?, index))).collect();
    nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let mut needs: Vec<usize> =
                node.depends_on.iter().filter_map(|id| provider.get(id).copied()).collect();
            needs.sort_unstable();
            needs.dedup();
            needs.retain(|need| *need != index);
            needs
        })
        .collect()
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Real(usize),
    StandIn(usize),
}

fn topological(nodes: &[Node], needs: &[Vec<usize>]) -> (Vec<Place>, HashSet<usize>) {
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut waits: Vec<usize> = vec![0; nodes.len()];
    for (index, list) in needs.iter().enumerate() {
        for need in list {
            if let Some(by) = needed_by.get_mut(*need) {
                by.push(index);
            }
        }
        if let Some(count) = waits.get_mut(index) {
            *count = list.len();
        }
    }
    let key = |index: usize| Reverse((nodes.get(index).map_or(0, |n| n.rank), index));
    let mut free: BinaryHeap<_> = (0..nodes.len()).filter(|i| waits.get(*i) == Some(&0)).map(key).collect();
    let mut done = vec![false; nodes.len()];
    let mut stand_ins = HashSet::new();
    let mut order = Vec::with_capacity(nodes.len());
    let mut first_open = 0;
    loop {
        while let Some(Reverse((_, index))) = free.pop() {
            if done.get(index) != Some(&false) {
                continue;
            }
            if let Some(flag) = done.get_mut(index) {
                *flag = true;
            }
            order.push(Place::Real(index));
            if !stand_ins.contains(&index) {
                release(index, &needed_by, &mut waits, |next| free.push(key(next)));
            }
        }
        while done.get(first_open) == Some(&true) {
            first_open += 1;
        }
        if first_open >= nodes.len() {
            return (order, stand_ins);
        }
        let cycle = find_cycle(first_open, needs, &done, &stand_ins);
        match cycle.iter().find(|i| nodes.get(**i).is_some_and(|n| n.stand_in.is_some())) {
            Some(index) => {
                stand_ins.insert(*index);
                order.push(Place::StandIn(*index));
                release(*index, &needed_by, &mut waits, |next| free.push(key(next)));
            }
            None => {
                let lowest = cycle.iter().copied().min_by_key(|i| (nodes.get(*i).map_or(0, |n| n.rank), *i));
                free.push(key(lowest.unwrap_or(first_open)));
            }
        }
    }
}

fn release(index: usize, needed_by: &[Vec<usize>], waits: &mut [usize], mut free: impl FnMut(usize)) {
    for next in needed_by.get(index).into_iter().flatten() {
        if let Some(count) = waits.get_mut(*next) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                free(*next);
            }
        }
    }
}

/// Follows open needs until a node comes again.
fn find_cycle(start: usize, needs: &[Vec<usize>], done: &[bool], stand_ins: &HashSet<usize>) -> Vec<usize> {
    let mut path: Vec<usize> = Vec::new();
    let mut seen: HashMap<usize, usize> = HashMap::new();
    let mut at = start;
    loop {
        if let Some(place) = seen.get(&at) {
            return path.split_off(*place);
        }
        seen.insert(at, path.len());
        path.push(at);
        let open = |need: &&usize| done.get(**need) == Some(&false) && !stand_ins.contains(*need);
        match needs.get(at).and_then(|list| list.iter().find(open)) {
            Some(next) => at = *next,
            None => return path,
        }
    }
}

fn split(nodes: &[Node], needs: &[Vec<usize>], order: &[Place]) -> Split {
    let real: Vec<usize> =
        order.iter().filter_map(|p| if let Place::Real(i) = p { Some(*i) } else { None }).collect();
    let mut blocked = vec![false; nodes.len()];
    for index in &real {
        let needs_blocked =
            needs.get(*index).into_iter().flatten().any(|need| blocked.get(*need) == Some(&true));
        if let Some(flag) = blocked.get_mut(*index) {
            *flag = needs_blocked || nodes.get(*index).is_some_and(|n| n.late);
        }
    }
    let wanted = want(nodes, needs, &real, &blocked);
    let slot = |index: usize| {
        let early = wanted.get(index) == Some(&true) && blocked.get(index) == Some(&false);
        if early { Slot::Pre } else { Slot::Post }
    };
    Split { slots: (0..nodes.len()).map(slot).collect(), wanted }
}

struct Split {
    slots: Vec<Slot>,
    wanted: Vec<bool>,
}

/// What is made before the data for its own sake or for another's. Repeated, because behind
/// a cut cycle a need can stand after who needs it.
fn want(nodes: &[Node], needs: &[Vec<usize>], real: &[usize], blocked: &[bool]) -> Vec<bool> {
    let mut wanted = vec![false; nodes.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for index in real.iter().rev() {
            let free = blocked.get(*index) == Some(&false);
            let eager = nodes.get(*index).is_some_and(|n| !n.lazy);
            if !free || !(eager || wanted.get(*index) == Some(&true)) {
                continue;
            }
            for need in needs.get(*index).into_iter().flatten().chain([index]) {
                if let Some(flag) = wanted.get_mut(*need) {
                    changed |= !*flag;
                    *flag = true;
                }
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::{Node, Slot, sort};
    use crate::apply::schema::plan::{Need, Step};
    use scry_wire::catalog::{Class, ObjectId};

    fn id(oid: u32) -> ObjectId {
        ObjectId { class: Class::Relation, oid }
    }

    fn step(oid: u32, part: &'static str) -> Step {
        Step {
            object: id(oid),
            describe: oid.to_string(),
            part,
            sql: Vec::new(),
            values: Vec::new(),
            undo: None,
            need: Need::Nothing,
            makes: None,
            reads: None,
        }
    }

    fn node(oid: u32, rank: u8, depends_on: &[u32]) -> Node {
        Node {
            provides: Some(id(oid)),
            depends_on: depends_on.iter().map(|oid| id(*oid)).collect(),
            rank,
            late: false,
            lazy: false,
            stand_in: None,
            slot: Slot::Pre,
            step: step(oid, "create"),
        }
    }

    fn order(nodes: Vec<Node>) -> Vec<(u32, &'static str, Slot)> {
        sort(nodes).into_iter().map(|node| (node.step.object.oid, node.step.part, node.slot)).collect()
    }

    const PRE: Slot = Slot::Pre;
    const POST: Slot = Slot::Post;

    #[test]
    fn needs_come_before_ranks() {
        let nodes = vec![node(1, 0, &[3]), node(2, 1, &[]), node(3, 9, &[2, 99]), node(4, 2, &[])];
        let expected = [(2, "create", PRE), (4, "create", PRE), (3, "create", PRE), (1, "create", PRE)];
        assert_eq!(order(nodes), expected);
    }

    #[test]
    fn late_ones_take_their_dependents_along() {
        let mut late = node(1, 0, &[]);
        late.late = true;
        let nodes = vec![late, node(2, 1, &[1]), node(3, 2, &[2]), node(4, 3, &[])];
        let expected = [(1, "create", POST), (2, "create", POST), (3, "create", POST), (4, "create", PRE)];
        assert_eq!(order(nodes), expected);
    }

    #[test]
    fn lazy_ones_wait_unless_needed() {
        let lazy = |oid, needs: &[u32]| Node { lazy: true, ..node(oid, 5, needs) };
        let nodes = vec![lazy(1, &[]), lazy(2, &[1]), lazy(3, &[]), node(4, 9, &[2])];
        let expected = [(1, "create", PRE), (2, "create", PRE), (3, "create", POST), (4, "create", PRE)];
        assert_eq!(order(nodes), expected);
    }

    #[test]
    fn cycles_are_cut_by_a_stand_in() {
        let mut view = node(1, 11, &[2, 3]);
        view.lazy = true;
        view.stand_in = Some(step(1, "stand-in"));
        let nodes = vec![view, node(2, 5, &[1]), node(3, 8, &[]), node(4, 9, &[2])];
        let expected = [
            (3, "create", PRE),
            (1, "stand-in", PRE),
            (2, "create", PRE),
            (4, "create", PRE),
            (1, "create", PRE),
        ];
        assert_eq!(order(nodes), expected);
    }

    #[test]
    fn cycles_without_a_stand_in_end_too() {
        let nodes =
            vec![node(1, 5, &[2]), node(2, 4, &[3]), node(3, 6, &[1]), node(4, 9, &[3]), node(5, 1, &[5])];
        let found: Vec<u32> = order(nodes).into_iter().map(|(oid, _, _)| oid).collect();
        assert_eq!(found, [5, 2, 1, 3, 4]);
    }

    #[test]
    fn a_stand_in_may_be_needed_before_what_must_wait() {
        // The view needs something late; a function needs the view's row type.
        let mut late = node(3, 0, &[]);
        late.late = true;
        let mut view = node(1, 11, &[2, 3]);
        view.lazy = true;
        view.stand_in = Some(step(1, "stand-in"));
        let found = order(vec![view, node(2, 5, &[1]), late]);
        let expected = [(3, "create", POST), (1, "stand-in", PRE), (2, "create", PRE), (1, "create", POST)];
        assert_eq!(found, expected);
    }
}

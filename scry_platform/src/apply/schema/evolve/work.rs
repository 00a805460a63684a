//! One pass: what of the new document is not there yet, in the order of creation.
//!
//! ```text
//! plan(new) ─ steps of objects that are absent ─┐
//! settle(have, want) ─ steps of the others ─────┴► one list:
//!   pre-data, indexes, keys, ─places in trees─, the other stages, late settings
//! ```
//!
//! A partition is attached once it has its own indexes and keys, so that the server finds
//! them instead of making others; before that it gets the checks of its parent. New indexes and
//! keys of partitioned tables come after it (see `parents`).

use super::parents::after_partitions;
use super::settle::{Context, Settle, settle};
use crate::apply::schema::evolve::drop::drop_step;
use crate::apply::schema::plan::{Plan, StageName, Step};
use crate::apply::schema::quote::{ident, qualified};
use scry_wire::catalog::{Catalog, Class, Entry, Object, ObjectId, Table};
use std::collections::{HashMap, HashSet};

/// What one pass runs.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// What is made again goes first.
    pub drops: Vec<Step>,
    /// The rest.
    pub steps: Vec<Step>,
    /// Also to be looked at from now on: what was dropped along.
    pub dropped: HashSet<ObjectId>,
    /// Cannot be made again while something that is no part of it needs it.
    pub stuck: Vec<(ObjectId, String)>,
}

/// What earlier passes have done.
#[derive(Debug, Default)]
pub(super) struct Made {
    /// Keys of the steps, by their objects.
    steps: HashMap<ObjectId, HashSet<String>>,
    /// Objects that were made.
    created: HashSet<ObjectId>,
}

impl Made {
    /// These have been run.
    pub(super) fn extend<'s>(&mut self, steps: impl IntoIterator<Item = &'s Step>) {
        for step in steps {
            self.steps.entry(step.object).or_default().insert(step.key());
            if step.part == "create" {
                self.created.insert(step.object);
            }
        }
    }

    /// These are dropped, to be made again.
    pub(super) fn forget(&mut self, dropped: &HashSet<ObjectId>) {
        for id in dropped {
            self.steps.remove(id);
            self.created.remove(id);
        }
    }

    fn has(&self, step: &Step) -> bool {
        self.steps.get(&step.object).is_some_and(|keys| keys.contains(&step.key()))
    }
}

/// Plans a pass over the objects of `interest`; `have` is what the shadow says of them, `made`
/// what earlier passes have done. What they have made is not made again: where the shadow writes
/// its definition otherwise than the source, it always will.
pub(super) fn work(
    context: &Context<'_>,
    new: &Catalog,
    plan: &Plan,
    interest: &HashSet<ObjectId>,
    have: &HashMap<String, Object>,
    made: &Made,
) -> Work {
    let mut work = Work::default();
    let mut create: HashSet<ObjectId> = HashSet::new();
    let mut settled: HashMap<ObjectId, Settle> = HashMap::new();
    for want in new.objects.iter().filter(|object| interest.contains(&object.id())) {
        match have.get(&want.describe()) {
            None => {
                create.insert(want.id());
            }
            Some(have) => {
                let found = settle(context, have, want);
                if found.again && made.created.contains(&want.id()) {
                    continue;
                } else if found.again {
                    again(new, want, have, &mut work);
                } else {
                    settled.insert(want.id(), found);
                }
            }
        }
    }
    for id in &work.dropped {
        settled.remove(id);
        create.insert(*id);
    }
    let steps = Sorted { context, plan, create: &create, settled, made }.collect(new);
    work.steps = steps;
    work
}

/// An object that is dropped and made again, with all that needs it.
fn again(new: &Catalog, want: &Object, have: &Object, work: &mut Work) {
    let mut dropped: Vec<&Object> = vec![want];
    let mut ids: HashSet<ObjectId> = HashSet::from([want.id()]);
    let mut more = true;
    while more {
        more = false;
        for object in &new.objects {
            let needs = object.depends_on.iter().any(|id| ids.contains(id));
            let default_needs = default_needs(object, &ids);
            if (needs || default_needs) && ids.insert(object.id()) {
                if matches!(object.entry, Entry::Table(_) | Entry::Schema(_) | Entry::Extension(_))
                    || default_needs
                {
                    work.stuck.push((want.id(), object.describe()));
                    return;
                }
                dropped.push(object);
                more = true;
            }
        }
    }
    let others = dropped.iter().skip(1).rev().copied();
    work.drops.extend(others.chain([have]).filter_map(|object| drop_step(object, "make again")));
    work.dropped.extend(ids);
}

fn default_needs(object: &Object, ids: &HashSet<ObjectId>) -> bool {
    match &object.entry {
        Entry::Table(table) => {
            let defaults = table.columns.iter().filter_map(|c| c.default.as_ref());
            defaults.flat_map(|d| &d.depends_on).any(|id| ids.contains(id))
        }
        Entry::Domain(domain) => {
            domain.constraints.iter().flat_map(|c| &c.depends_on).any(|id| ids.contains(id))
        }
        _ => false,
    }
}

struct Sorted<'a> {
    context: &'a Context<'a>,
    plan: &'a Plan,
    create: &'a HashSet<ObjectId>,
    settled: HashMap<ObjectId, Settle>,
    made: &'a Made,
}

impl Sorted<'_> {
    fn collect(mut self, new: &Catalog) -> Vec<Step> {
        for settle in self.settled.values_mut() {
            // Run already, and it comes to the same.
            for list in [&mut settle.own, &mut settle.attach, &mut settle.late] {
                list.retain(|step| !self.made.has(step));
            }
        }
        let mut steps = Vec::new();
        let mut attach = Vec::new();
        let plan = self.plan;
        for step in &plan.pre_data {
            if step.part == "attach" && self.create.contains(&step.object) {
                attach.extend(self.wanted(step));
            } else {
                self.take(step, &mut steps);
            }
        }
        // What has no step of its own in the plan, and still may differ.
        let early = |name: StageName| name <= StageName::Keys;
        let waits = after_partitions(new, self.create);
        let mut waiting = Vec::new();
        for stage in plan.post_data.iter().filter(|stage| early(stage.name)) {
            for step in &stage.steps {
                let list = if waits.contains(&step.object) { &mut waiting } else { &mut steps };
                self.take(step, list);
            }
        }
        let (mut places, mut late) = (attach, Vec::new());
        for object in &new.objects {
            if let Some(settle) = self.settled.get_mut(&object.id()) {
                places.append(&mut settle.attach);
                late.append(&mut settle.late);
            }
        }
        for step in places {
            steps.extend(self.checks_before(new, &step));
            steps.push(step);
        }
        steps.append(&mut waiting);
        for stage in plan.post_data.iter().filter(|stage| !early(stage.name)) {
            stage.steps.iter().for_each(|step| self.take(step, &mut steps));
        }
        for object in &new.objects {
            if let Some(settle) = self.settled.get_mut(&object.id()) {
                steps.append(&mut settle.own);
            }
        }
        steps.append(&mut late);
        steps
    }

    /// The step, if its object is to be made; what settles the object, at its first step.
    fn take(&mut self, step: &Step, steps: &mut Vec<Step>) {
        if self.create.contains(&step.object) {
            steps.extend(self.wanted(step));
        } else if let Some(settle) = self.settled.get_mut(&step.object) {
            steps.append(&mut settle.own);
        }
    }

    fn wanted(&self, step: &Step) -> Option<Step> {
        (!self.made.has(step)).then(|| step.clone())
    }

    /// The checks that a partition must have before it is one: its parent's.
    fn checks_before(&self, new: &Catalog, attach: &Step) -> Vec<Step> {
        let Some(table) = self.table(attach.object).filter(|t| t.partition_bound.is_some()) else {
            return Vec::new();
        };
        let checks = new.objects.iter().filter_map(|object| match &object.entry {
            Entry::Constraint(check)
                if check.contype == "c"
                    && check.table_oid == attach.object.oid
                    && self.create.contains(&object.id())
                    && table.parents.iter().any(|p| self.context.lookup.has_check(p.oid, &check.name)) =>
            {
                let sql = format!(
                    "ALTER TABLE {} ADD CONSTRAINT {} {}",
                    qualified(&check.schema, &check.table),
                    ident(&check.name),
                    check.definition
                );
                Some(Step::new(object, "create", vec![sql]))
            }
            _ => None,
        });
        checks.collect()
    }

    fn table(&self, id: ObjectId) -> Option<&Table> {
        match &self.context.lookup.get(ObjectId { class: Class::Relation, oid: id.oid })?.entry {
            Entry::Table(table) => Some(table),
            _ => None,
        }
    }
}

//! What the configured locations contain: which locations to ask for, and where each sensor was found. Pure.
//!
//! Each location is asked for once, however many ways lead to it. Where a sensor stands is worked out at the end, from
//! all replies together, so that it never depends on the order in which they came.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    path::Path,
    readings::{Settled, VarNames},
};
use crate::{
    api::{LocationEntry, LocationReply},
    config,
    snapshot::UnixTime,
};

/// `locations: [{id: base}]`: the account's base location, whose id the API tells.
const BASE: &str = "base";

/// What is remembered of a location from its last good reply, for the time when it fails.
#[derive(Debug, Clone, Default)]
pub(super) struct Outline {
    /// Never empty.
    name: Option<Arc<str>>,
    children: Vec<Child>,
}

#[derive(Debug, Clone)]
struct Child {
    id: Arc<str>,
    /// Of the children it is nested in.
    path: Path,
    /// Never empty.
    name: Option<Arc<str>>,
}

/// What is known of locations between collections.
#[derive(Debug, Default)]
pub(super) struct Memory {
    outlines: HashMap<Arc<str>, Outline>,
    base: Option<Arc<str>>,
}

/// A location's request in this collection.
#[derive(Debug)]
struct Visit {
    /// Its children are asked for too.
    recursive: bool,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Awaited,
    Failed,
    Good(Outline, Vec<Sighting>),
}

/// A sensor in one reply.
#[derive(Debug)]
struct Sighting {
    id: Arc<str>,
    name: Option<String>,
    path: Path,
    /// The child location it is nested in.
    parent: Option<Arc<str>>,
    settled: Option<Settled>,
}

/// Where and how a sensor was found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Finding {
    /// The API's name, by the best place that tells one.
    pub(super) name: Option<String>,
    /// The path of the best place that has one.
    pub(super) path: Option<Path>,
    /// The best place's id.
    pub(super) location_id: Option<String>,
    /// The requests whose replies hold it, each once.
    pub(super) sources: Vec<Arc<str>>,
    /// `None` if no reply holds readings of the known shape.
    pub(super) settled: Option<Settled>,
}

/// Child locations that the replies of one collection may tell of: an account with a sensor in each has its hands full.
const MAX_LOCATIONS: usize = 100_000;
/// What the replies of one collection may hold, as a multiple of the series that may come of it. What is over the limit
/// by less is sorted out at the end, the same each time.
const HELD_PER_SERIES: usize = 2;

/// The survey of one collection.
#[derive(Debug)]
pub(super) struct Survey {
    roots: Arc<[config::Location]>,
    memory: Memory,
    visits: BTreeMap<Arc<str>, Visit>,
    /// The reply of `GET /locations`, which counts as one of the base location's own.
    base_reply: Answer,
    base: Option<Arc<str>>,
    /// Child locations in the replies so far.
    children: usize,
    /// Sensors and items of theirs in the replies so far.
    held: usize,
}

impl Survey {
    pub(super) fn new(roots: Arc<[config::Location]>, memory: Memory) -> Self {
        Self {
            roots,
            memory,
            visits: BTreeMap::new(),
            base_reply: Answer::Awaited,
            base: None,
            children: 0,
            held: 0,
        }
    }

    /// A survey that will ask nobody: it knows what is remembered.
    pub(super) fn of_memory(roots: Arc<[config::Location]>, memory: Memory) -> Self {
        let base = memory.base.clone();
        Self {
            base,
            ..Self::new(roots, memory)
        }
    }

    /// Whether `GET /locations` is needed, and the locations to ask for first.
    pub(super) fn begin(&mut self) -> (bool, Vec<Arc<str>>) {
        let mut first = Vec::new();
        for root in self.roots.clone().iter().filter(|root| root.id != BASE) {
            self.reach(root.id.as_str().into(), root.recursive, &mut first);
        }
        (self.asks_base(), first)
    }

    fn asks_base(&self) -> bool {
        self.roots.iter().any(|root| root.id == BASE)
    }

    /// Whether a reply may be kept besides those that are kept already, or why not.
    pub(super) fn make_room(
        &mut self,
        reply: &LocationReply,
        max_series: usize,
    ) -> Result<(), String> {
        let items = |found: &LocationEntry| 1 + found.items.as_ref().map_or(0, Vec::len);
        let held = self.held + reply.sensors.iter().map(items).sum::<usize>();
        let children = self.children + reply.children.len();
        if held > max_series.saturating_mul(HELD_PER_SERIES) {
            return Err(format!(
                "its reply and those before it hold more than {HELD_PER_SERIES} readings for each series of \
                 collect.max_series ({max_series})"
            ));
        }
        if children > MAX_LOCATIONS {
            return Err(format!(
                "its reply and those before it tell of more than {MAX_LOCATIONS} child locations"
            ));
        }
        (self.held, self.children) = (held, children);
        Ok(())
    }

    /// `GET /locations` has been answered, or has failed for good. Yields further locations to ask for.
    pub(super) fn base_answered(
        &mut self,
        reply: Option<LocationReply>,
        now: UnixTime,
        names: &mut VarNames,
    ) -> Vec<Arc<str>> {
        let id = reply
            .as_ref()
            .and_then(|reply| reply.id.as_deref().map(Arc::from));
        let answer = self.answer_of(BASE, reply, now, names);
        self.settle_base(id, answer)
    }

    fn settle_base(&mut self, id: Option<Arc<str>>, answer: Answer) -> Vec<Arc<str>> {
        self.base = id.or_else(|| self.memory.base.clone());
        self.base_reply = answer;
        let recursive = self
            .roots
            .iter()
            .any(|root| root.id == BASE && root.recursive);
        let mut further = Vec::new();
        if let Some(base) = self.base.clone() {
            self.reach(base, recursive, &mut further);
        }
        if recursive {
            self.descend(BASE, &mut further);
        }
        further
    }

    /// A location has been answered, or has failed for good. Yields further locations to ask for.
    pub(super) fn answered(
        &mut self,
        id: &str,
        reply: Option<LocationReply>,
        now: UnixTime,
        names: &mut VarNames,
    ) -> Vec<Arc<str>> {
        let answer = self.answer_of(id, reply, now, names);
        self.settle(id, answer)
    }

    fn settle(&mut self, id: &str, answer: Answer) -> Vec<Arc<str>> {
        let mut further = Vec::new();
        if let Some(visit) = self.visits.get_mut(id) {
            visit.answer = answer;
            if visit.recursive {
                self.descend(id, &mut further);
            }
        }
        further
    }

    /// The end: what was not answered has failed, and so has what is remembered below it, which there was no time to ask
    /// for. Yields the latter.
    pub(super) fn give_up(&mut self) -> Vec<Arc<str>> {
        let is_awaited = |answer: &Answer| matches!(answer, Answer::Awaited);
        let visits = self.visits.iter();
        let awaited = visits.filter(|(_, visit)| is_awaited(&visit.answer));
        let mut ahead: Vec<_> = awaited.map(|(id, _)| id.clone()).collect();
        let mut never_asked = Vec::new();
        if self.asks_base() && is_awaited(&self.base_reply) {
            never_asked = self.settle_base(None, Answer::Failed);
            ahead.extend(never_asked.iter().cloned());
        }
        while let Some(id) = ahead.pop() {
            let below = self.settle(&id, Answer::Failed);
            ahead.extend(below.iter().cloned());
            never_asked.extend(below);
        }
        never_asked
    }

    /// What came of a request, with the names known from the last good reply where this one tells none.
    fn answer_of(
        &self,
        source: &str,
        reply: Option<LocationReply>,
        now: UnixTime,
        names: &mut VarNames,
    ) -> Answer {
        let known = self.memory.outlines.get(source);
        reply.map_or(Answer::Failed, |reply| {
            Answer::good(reply, known, now, names)
        })
    }

    fn reach(&mut self, id: Arc<str>, recursive: bool, further: &mut Vec<Arc<str>>) {
        match self.visits.get_mut(&id) {
            None => {
                self.visits.insert(
                    id.clone(),
                    Visit {
                        recursive,
                        answer: Answer::Awaited,
                    },
                );
                further.push(id);
            }
            Some(visit) if recursive && !visit.recursive => {
                visit.recursive = true;
                self.descend(&id, further);
            }
            Some(_) => {}
        }
    }

    /// Asks for the children of a location that was answered; of one that failed, for those it had.
    fn descend(&mut self, id: &str, further: &mut Vec<Arc<str>>) {
        if matches!(self.answer(id), Answer::Awaited) {
            return;
        }
        let children: Vec<_> = self
            .outline(id)
            .into_iter()
            .flat_map(|outline| &outline.children)
            .map(|child| child.id.clone())
            .collect();
        for child in children {
            self.reach(child, true, further);
        }
    }

    /// How a request ended; the base reply goes by the name [`BASE`].
    fn answer(&self, source: &str) -> &Answer {
        match self.visits.get(source) {
            Some(visit) => &visit.answer,
            None if source == BASE => &self.base_reply,
            None => &Answer::Failed,
        }
    }

    /// What is known of a location: from this collection, else from the last good reply.
    fn outline(&self, source: &str) -> Option<&Outline> {
        match self.answer(source) {
            Answer::Good(outline, _) => Some(outline),
            Answer::Awaited | Answer::Failed => self.memory.outlines.get(source),
        }
    }

    /// The sensors that good replies of this collection hold.
    pub(super) fn seen(&self) -> HashSet<&str> {
        let mut base = self.roots.iter().filter(|root| root.id == BASE);
        let base_recursive = base.any(|root| root.recursive);
        let answers = self
            .visits
            .values()
            .map(|visit| (&visit.answer, visit.recursive))
            .chain([(&self.base_reply, base_recursive)]);
        answers
            .flat_map(|(answer, recursive)| answer.counted(recursive))
            .map(|sighting| &*sighting.id)
            .collect()
    }

    /// Whether this request was made and failed, or was not answered.
    pub(super) fn has_failed(&self, source: &str) -> bool {
        let made = source == BASE || self.visits.contains_key(source);
        made && matches!(self.answer(source), Answer::Failed | Answer::Awaited)
    }

    /// How many locations failed or were not answered, and how many requests were good.
    pub(super) fn tally(&self) -> (usize, usize) {
        let base: Arc<str> = self.base.clone().unwrap_or_else(|| BASE.into());
        let base_reply = self.asks_base().then_some((&base, &self.base_reply));
        let answers = self
            .visits
            .iter()
            .map(|(id, visit)| (id, &visit.answer))
            .chain(base_reply);
        let (good, failed): (Vec<_>, Vec<_>) =
            answers.partition(|(_, answer)| matches!(answer, Answer::Good(..)));
        (
            failed
                .into_iter()
                .map(|(id, _)| id)
                .collect::<HashSet<_>>()
                .len(),
            good.len(),
        )
    }

    /// What was remembered before, of a collection that is given up.
    pub(super) fn abandon(self) -> Memory {
        self.memory
    }

    /// The requests that lead to what is known to lie below the roots.
    pub(super) fn reachable(&self) -> HashSet<Arc<str>> {
        self.roots
            .iter()
            .flat_map(|root| self.ways_from(root).into_keys())
            .collect()
    }

    /// Every sensor that was found, and what to remember for the next collection.
    pub(super) fn conclude(mut self) -> (BTreeMap<Arc<str>, Finding>, Memory) {
        let mut findings: BTreeMap<_, _> = self
            .places()
            .into_iter()
            .map(|(sensor, places)| (sensor, Finding::at_best_of(places)))
            .collect();
        let asks_base = self.asks_base();
        let mut memory = Memory {
            base: self.base.take(),
            ..Memory::default()
        };
        let visits = std::mem::take(&mut self.visits)
            .into_iter()
            .map(|(id, visit)| (id, visit.answer));
        let base_reply = asks_base.then(|| (BASE.into(), self.base_reply));
        for (id, answer) in visits.chain(base_reply) {
            let outline = match answer {
                Answer::Good(outline, sightings) => {
                    for sighting in sightings {
                        let finding = findings
                            .get_mut(&sighting.id)
                            .filter(|finding| finding.sources.contains(&id));
                        if let (Some(finding), Some(settled)) = (finding, sighting.settled) {
                            let before = finding.settled.take();
                            finding.settled = Some(settled.merged_into(before));
                        }
                    }
                    Some(outline)
                }
                Answer::Failed | Answer::Awaited => self.memory.outlines.remove(&id),
            };
            memory.outlines.extend(outline.map(|outline| (id, outline)));
        }
        (findings, memory)
    }

    /// Every place of every sensor, walking down from each root.
    fn places(&self) -> BTreeMap<Arc<str>, Vec<Place>> {
        let mut places = BTreeMap::<Arc<str>, Vec<Place>>::new();
        for (order, root) in self.roots.iter().enumerate() {
            for (source, way) in self.ways_from(root) {
                for sighting in self.answer(&source).counted(root.recursive) {
                    places.entry(sighting.id.clone()).or_default().push(Place {
                        path: way.path.join(&sighting.path),
                        root: order,
                        location_id: sighting.parent.clone().or_else(|| way.location.clone()),
                        name: sighting.name.clone().filter(|name| !name.is_empty()),
                        source: source.clone(),
                    });
                }
            }
        }
        places
    }

    /// The location that each request reached from `root` asks for, with the longest way to it.
    fn ways_from(&self, root: &config::Location) -> BTreeMap<Arc<str>, Way> {
        let is_base = root.id == BASE;
        let location: Option<Arc<str>> = if is_base {
            self.base.clone()
        } else {
            Some(root.id.as_str().into())
        };
        let sources: Vec<Arc<str>> = location
            .iter()
            .cloned()
            .chain(is_base.then(|| BASE.into()))
            .collect();
        let told = sources
            .iter()
            .find_map(|source| self.outline(source)?.name.clone());
        let start = Way {
            path: root.name.as_deref().or(told.as_deref()).into(),
            location,
            through: Vec::new(),
        };
        let start_at = |source: &Arc<str>| (source.clone(), start.clone());
        let mut ways: BTreeMap<Arc<str>, Way> = sources.iter().map(start_at).collect();
        let mut ahead = if root.recursive { sources } else { Vec::new() };
        while let Some(source) = ahead.pop() {
            let (Some(way), Some(outline)) = (ways.get(&source).cloned(), self.outline(&source))
            else {
                continue;
            };
            let steps = way.through.len() + 1;
            for child in &outline.children {
                // A location below itself is a loop in the API's tree.
                let is_loop = child.id == source || way.through.contains(&child.id);
                let known = ways.get(&child.id).map(|known| known.through.len());
                if is_loop || steps > MAX_DEPTH || known.is_some_and(|known| known >= steps) {
                    continue;
                }
                // Its own reply may tell the name that its parent's does not.
                let own = || self.outline(&child.id)?.name.clone();
                let name = child.name.clone().or_else(own);
                let below = Way {
                    path: way.path.join(&child.path).join(&name.as_deref().into()),
                    location: Some(child.id.clone()),
                    through: way.through.iter().chain([&source]).cloned().collect(),
                };
                ways.insert(child.id.clone(), below);
                ahead.push(child.id.clone());
            }
        }
        ways
    }
}

/// How a location is reached.
#[derive(Debug, Clone)]
struct Way {
    path: Path,
    location: Option<Arc<str>>,
    through: Vec<Arc<str>>,
}

impl Finding {
    /// Deepest path first, then the order in `locations:`, then the smaller id.
    fn at_best_of(mut places: Vec<Place>) -> Self {
        places.sort_by(|a, b| {
            let by_depth = b.path.depth.cmp(&a.path.depth).then(a.root.cmp(&b.root));
            by_depth.then_with(|| by_number(&a.location_id, &b.location_id))
        });
        let mut sources: Vec<_> = places.iter().map(|place| place.source.clone()).collect();
        sources.sort();
        sources.dedup();
        Self {
            name: places.iter().find_map(|place| place.name.clone()),
            path: places
                .iter()
                .find(|place| place.path.depth > 0)
                .map(|place| place.path.clone()),
            location_id: places
                .first()
                .and_then(|place| place.location_id.as_deref().map(str::to_owned)),
            sources,
            settled: None,
        }
    }
}

/// A deeper building is a loop in the API's tree.
const MAX_DEPTH: usize = 32;

/// One place of one sensor.
struct Place {
    path: Path,
    root: usize,
    location_id: Option<Arc<str>>,
    name: Option<String>,
    source: Arc<str>,
}

/// Numbers by value, before texts by letter.
fn by_number(a: &Option<Arc<str>>, b: &Option<Arc<str>>) -> std::cmp::Ordering {
    let key = |id: &Option<Arc<str>>| {
        let id = id.as_deref().unwrap_or_default();
        (id.parse::<u64>().unwrap_or(u64::MAX), id.to_owned())
    };
    key(a).cmp(&key(b))
}

impl Answer {
    /// Sensors in the reply; without recursion, not those nested under child locations.
    fn counted(&self, recursive: bool) -> impl Iterator<Item = &Sighting> {
        let sightings = match self {
            Self::Good(_, sightings) => sightings.iter(),
            Self::Awaited | Self::Failed => [].iter(),
        };
        sightings.filter(move |sighting| recursive || sighting.parent.is_none())
    }

    fn good(
        reply: LocationReply,
        known: Option<&Outline>,
        now: UnixTime,
        names: &mut VarNames,
    ) -> Self {
        let told = |name: Option<String>| name.filter(|name| !name.is_empty()).map(Arc::from);
        let known_names: HashMap<&str, &Arc<str>> = known
            .into_iter()
            .flat_map(|known| &known.children)
            .filter_map(|child| Some((&*child.id, child.name.as_ref()?)))
            .collect();
        // By child: the path of what is nested in it, with names that only we know.
        let mut paths = HashMap::<Arc<str>, Path>::new();
        let mut children = Vec::new();
        for LocationEntry {
            id, name, parent, ..
        } in reply.children
        {
            let path = parent.and_then(|parent| paths.get(&parent).cloned());
            let path = path.unwrap_or_default();
            let name = told(name).or_else(|| known_names.get(&*id).copied().cloned());
            let inside = path.join(&name.as_deref().into());
            let id: Arc<str> = id.into();
            children.push(Child {
                id: id.clone(),
                path,
                name,
            });
            // A child that stands in two places is where its path is longer.
            let known = paths.entry(id).or_default();
            if known.depth < inside.depth {
                *known = inside;
            }
        }
        let outline = Outline {
            name: told(reply.name).or_else(|| known?.name.clone()),
            children,
        };
        let sightings = reply.sensors.into_iter().map(
            |LocationEntry {
                 id,
                 name,
                 parent,
                 items,
                 ..
             }| Sighting {
                id: id.into(),
                name,
                path: parent
                    .as_ref()
                    .and_then(|parent| paths.get(parent).cloned())
                    .unwrap_or_default(),
                parent,
                settled: items.map(|items| Settled::from_items(items, now, names)),
            },
        );
        Self::Good(outline, sightings.collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::api::Item;

    const NOW: f64 = 1_716_301_234.0;

    fn root(id: &str, name: Option<&str>, recursive: bool) -> config::Location {
        config::Location {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            recursive,
        }
    }

    fn sensor(id: &str, value: f64, parent: Option<&str>) -> LocationEntry {
        let reading = Item::Reading {
            var_name: "CO2ppm".to_owned(),
            time: NOW,
            value,
        };
        let parent = parent.map(Arc::from);
        LocationEntry {
            id: id.to_owned(),
            name: Some(format!("name of {id}")),
            parent,
            items: Some(vec![reading]),
        }
    }

    fn child(id: &str, name: &str) -> LocationEntry {
        LocationEntry {
            id: id.to_owned(),
            name: Some(name.to_owned()),
            parent: None,
            items: None,
        }
    }

    fn reply(
        name: &str,
        sensors: Vec<LocationEntry>,
        children: Vec<LocationEntry>,
    ) -> LocationReply {
        LocationReply {
            id: None,
            name: Some(name.to_owned()),
            sensors,
            children,
        }
    }

    /// What was found, what is remembered, how many failed and were good, and what was asked for.
    type Walked = (
        BTreeMap<Arc<str>, Finding>,
        Memory,
        (usize, usize),
        Vec<String>,
    );

    /// Answers every request from `world` (what is not there fails), in the order of `pick`.
    fn walk(
        roots: &[config::Location],
        memory: Memory,
        world: &dyn Fn(&str) -> Option<LocationReply>,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Walked {
        let mut names = VarNames::default();
        let mut survey = Survey::new(roots.into(), memory);
        let (base, mut ahead) = survey.begin();
        if base {
            ahead.push(BASE.into());
        }
        let mut asked = Vec::new();
        while !ahead.is_empty() {
            let id = ahead.remove(pick(ahead.len()));
            asked.push(id.to_string());
            let further = match &*id {
                BASE => survey.base_answered(world(&id), NOW, &mut names),
                id => survey.answered(id, world(id), NOW, &mut names),
            };
            ahead.extend(further);
        }
        let tally = survey.tally();
        let (findings, memory) = survey.conclude();
        asked.sort();
        (findings, memory, tally, asked)
    }

    fn building(id: &str) -> Option<LocationReply> {
        Some(match id {
            "1" => reply(
                "HQ",
                vec![sensor("A", 1.0, None)],
                vec![child("2", "Floor 2"), child("3", "Floor 3")],
            ),
            "2" => reply("Floor 2", vec![sensor("B", 2.0, None)], vec![]),
            "3" => reply(
                "Floor 3",
                vec![sensor("C", 3.0, Some("9"))],
                vec![child("9", "Lab")],
            ),
            "9" => reply(
                "Lab",
                vec![sensor("C", 3.0, None)],
                vec![child("3", "a loop")],
            ),
            _ => return None,
        })
    }

    fn paths(findings: &BTreeMap<Arc<str>, Finding>) -> Vec<(&str, Option<&str>, Option<&str>)> {
        let places = findings.iter();
        places
            .map(|(id, found)| {
                (
                    &**id,
                    found.path.as_ref().map(|path| &*path.text),
                    found.location_id.as_deref(),
                )
            })
            .collect()
    }

    #[test]
    fn a_tree_is_walked_once_whatever_the_order_of_answers() {
        let roots = [root("1", None, true), root("3", Some("Third"), true)];
        let expected = [
            ("A", Some("HQ"), Some("1")),
            ("B", Some("HQ / Floor 2"), Some("2")),
            ("C", Some("HQ / Floor 3 / Lab"), Some("9")),
        ];
        for order in 0..6 {
            let (findings, _, tally, asked) =
                walk(&roots, Memory::default(), &building, |waiting| {
                    order % waiting
                });
            assert_eq!(paths(&findings), expected, "order {order}");
            assert_eq!(asked, ["1", "2", "3", "9"]);
            assert_eq!(tally, (0, 4));
            let readings = &findings["C"].settled.as_ref().unwrap().readings;
            assert_eq!((readings.len(), readings[0].value), (1, 3.0));
        }
    }

    #[test]
    fn without_recursion_nothing_below_counts() {
        let (findings, _, _, asked) = walk(
            &[root("3", Some("Third"), false)],
            Memory::default(),
            &building,
            |_| 0,
        );
        assert_eq!(paths(&findings), []);
        assert_eq!(asked, ["3"]);
        let (findings, ..) = walk(
            &[root("1", Some("A / B"), false)],
            Memory::default(),
            &building,
            |_| 0,
        );
        assert_eq!(paths(&findings), [("A", Some("A / B"), Some("1"))]);
    }

    #[test]
    fn the_deepest_path_wins_then_the_order_of_roots_then_the_smaller_id() {
        let same = |_: &str| Some(reply("", vec![sensor("A", 1.0, None)], vec![]));
        let roots = [
            root("10", Some("First"), true),
            root("9", Some("Second / Deep"), true),
        ];
        let (findings, ..) = walk(&roots, Memory::default(), &same, |_| 0);
        assert_eq!(paths(&findings), [("A", Some("Second / Deep"), Some("9"))]);
        let roots = [
            root("10", Some("First"), true),
            root("9", Some("Second"), true),
        ];
        let (findings, ..) = walk(&roots, Memory::default(), &same, |_| 0);
        assert_eq!(paths(&findings), [("A", Some("First"), Some("10"))]);
        let twins = |id: &str| match id {
            "1" => Some(reply(
                "",
                vec![],
                vec![child("10", "Twin"), child("9", "Twin")],
            )),
            id => same(id),
        };
        let (findings, ..) = walk(&[root("1", None, true)], Memory::default(), &twins, |_| 0);
        assert_eq!(paths(&findings), [("A", Some("Twin"), Some("9"))]);
    }

    #[test]
    fn the_base_location_is_found_and_walked() {
        let world = |id: &str| match id {
            BASE => Some(LocationReply {
                id: Some("1".to_owned()),
                ..reply("Account", vec![], vec![])
            }),
            id => building(id),
        };
        let (findings, memory, tally, asked) =
            walk(&[root(BASE, None, true)], Memory::default(), &world, |_| 0);
        assert_eq!(asked, ["1", "2", "3", "9", "base"]);
        assert_eq!(tally, (0, 5));
        assert_eq!(
            paths(&findings)[2],
            ("C", Some("HQ / Floor 3 / Lab"), Some("9"))
        );
        // Its id is remembered when the account's route fails.
        let (findings, _, tally, _) = walk(&[root(BASE, None, true)], memory, &building, |_| 0);
        assert_eq!(findings.len(), 3);
        assert_eq!(tally, (1, 4));
    }

    #[test]
    fn without_recursion_only_the_base_locations_own_sensors_count() {
        let roots = [root(BASE, None, false), root("9", None, true)];
        let mut survey = Survey::new(roots.into(), Memory::default());
        survey.begin();
        assert!(survey.has_failed(BASE), "not answered yet");
        let own = sensor("A", 1.0, None);
        let below = sensor("B", 1.0, Some("2"));
        let told = LocationReply {
            id: Some("1".to_owned()),
            ..reply("HQ", vec![own, below], vec![child("2", "Floor 2")])
        };
        let further = survey.base_answered(Some(told), NOW, &mut VarNames::default());
        assert_eq!(further, ["1".into()]);
        assert_eq!(survey.seen(), HashSet::from(["A"]));
        assert!(!survey.has_failed(BASE));
        assert!(!survey.has_failed("2"), "it is not asked for");
    }

    #[test]
    fn locations_are_followed_down_to_a_limit() {
        let world = |id: &str| {
            let depth: usize = id.parse().ok()?;
            let below = (depth + 1).to_string();
            let below = (depth <= MAX_DEPTH + 1).then(|| child(&below, &below));
            let here = sensor(&format!("S{depth}"), 1.0, None);
            Some(reply(id, vec![here], below.into_iter().collect()))
        };
        let (findings, ..) = walk(&[root("0", None, true)], Memory::default(), &world, |_| 0);
        let found = |depth: usize| findings.contains_key(&*format!("S{depth}"));
        assert!(found(MAX_DEPTH));
        assert!(!found(MAX_DEPTH + 1));
    }

    #[test]
    fn of_two_ways_to_a_location_the_longer_one_is_told() {
        for children in [["2", "3"], ["3", "2"]] {
            let world = |id: &str| {
                Some(match id {
                    "1" => reply("HQ", vec![], children.map(|id| child(id, id)).into()),
                    "2" => reply("2", vec![], vec![child("3", "3")]),
                    _ => reply("3", vec![sensor("A", 1.0, None)], vec![]),
                })
            };
            let (findings, ..) = walk(&[root("1", None, true)], Memory::default(), &world, |_| 0);
            assert_eq!(paths(&findings), [("A", Some("HQ / 2 / 3"), Some("3"))]);
        }
    }

    #[test]
    fn what_is_remembered_below_the_base_location_is_reachable() {
        let roots = [root(BASE, None, true)];
        let (_, memory, ..) = walk(
            &roots,
            Memory::default(),
            &|id| {
                Some(match id {
                    BASE => LocationReply {
                        id: Some("1".to_owned()),
                        ..reply("HQ", vec![], vec![])
                    },
                    "1" => reply("HQ", vec![], vec![child("2", "Floor 2")]),
                    _ => reply("", vec![], vec![]),
                })
            },
            |_| 0,
        );
        let reachable = Survey::of_memory(roots.into(), memory).reachable();
        let mut reachable: Vec<_> = reachable.iter().map(|id| &**id).collect();
        reachable.sort_unstable();
        assert_eq!(reachable, ["1", "2", BASE]);
    }

    #[test]
    fn of_a_location_in_two_places_the_deeper_one_counts_then_the_first() {
        let nested = || LocationEntry {
            parent: Some("2".into()),
            ..child("3", "Room")
        };
        for (children, path) in [
            (vec![nested(), child("3", "Room")], "HQ / Floor / Room"),
            (vec![child("3", "Room"), nested()], "HQ / Floor / Room"),
            (vec![child("3", "East"), child("3", "West")], "HQ / East"),
        ] {
            let mut survey = Survey::new([root("1", None, true)].into(), Memory::default());
            survey.begin();
            let floor = [child("2", "Floor")];
            let children = floor.into_iter().chain(children).collect();
            let told = reply("HQ", vec![sensor("A", 1.0, Some("3"))], children);
            survey.answered("1", Some(told), NOW, &mut VarNames::default());
            let (findings, _) = survey.conclude();
            assert_eq!(paths(&findings), [("A", Some(path), Some("3"))]);
        }
    }

    #[test]
    fn names_that_are_told_no_more_are_kept_and_a_childs_own_reply_may_tell_its_name() {
        let roots = [root("1", None, true)];
        let (_, memory, ..) = walk(&roots, Memory::default(), &building, |_| 0);
        let nameless = |id: &str| {
            let mut reply = building(id)?;
            reply.name = (id == "2").then(String::new);
            for child in &mut reply.children {
                child.name = None;
            }
            Some(reply)
        };
        let expected = [
            ("A", Some("HQ"), Some("1")),
            ("B", Some("HQ / Floor 2"), Some("2")),
            ("C", Some("HQ / Floor 3 / Lab"), Some("9")),
        ];
        let (findings, memory, ..) = walk(&roots, memory, &nameless, |_| 0);
        assert_eq!(paths(&findings), expected);
        let (findings, ..) = walk(&roots, memory, &nameless, |_| 0);
        assert_eq!(paths(&findings), expected, "for longer than one collection");

        let only_its_own = |id: &str| {
            let mut reply = building(id)?;
            for child in &mut reply.children {
                child.name = Some(String::new());
            }
            Some(reply)
        };
        let (findings, ..) = walk(&roots, Memory::default(), &only_its_own, |_| 0);
        assert_eq!(paths(&findings), expected);
    }

    #[test]
    fn a_sensor_nested_below_a_location_without_recursion_is_not_seen() {
        let roots = [root("3", None, false)];
        let mut survey = Survey::new(roots.into(), Memory::default());
        survey.begin();
        survey.answered("3", building("3"), NOW, &mut VarNames::default());
        assert!(!survey.seen().contains("C"));
        let roots = [root("3", None, false), root("1", None, true)];
        let mut survey = Survey::new(roots.into(), Memory::default());
        survey.begin();
        for id in ["1", "3"] {
            survey.answered(id, building(id), NOW, &mut VarNames::default());
        }
        assert!(survey.seen().contains("C"));
    }

    #[test]
    fn replies_are_kept_as_far_as_there_is_room() {
        let roots = [root("1", None, true)];
        let mut survey = Survey::new(roots.into(), Memory::default());
        let of_sensors = |count: usize| {
            let sensors = (0..count).map(|id| sensor(&id.to_string(), 1.0, None));
            reply("", sensors.collect(), vec![])
        };
        // Each is a sensor and a reading.
        assert_eq!(survey.make_room(&of_sensors(6), 10), Ok(()));
        assert!(survey.make_room(&of_sensors(5), 10).is_err());
        assert_eq!(survey.make_room(&of_sensors(4), 10), Ok(()));
        assert!(survey.make_room(&of_sensors(1), 10).is_err());

        let of_children = |count: usize| {
            let children = (0..count).map(|id| child(&id.to_string(), ""));
            reply("", vec![], children.collect())
        };
        assert_eq!(survey.make_room(&of_children(MAX_LOCATIONS), 10), Ok(()));
        let told = survey.make_room(&of_children(1), 10).unwrap_err();
        assert!(told.contains("more than 100000 child locations"), "{told}");
    }

    #[test]
    fn what_was_not_answered_has_failed_with_all_that_is_known_below_it() {
        let roots = [root("1", None, true)];
        let (_, memory, ..) = walk(&roots, Memory::default(), &building, |_| 0);
        let mut survey = Survey::new(roots.into(), memory);
        survey.begin();
        let mut never_asked = survey.give_up();
        never_asked.sort();
        assert_eq!(never_asked, ["2", "3", "9"].map(Arc::from));
        assert!(["1", "2", "3", "9"].iter().all(|id| survey.has_failed(id)));
        assert_eq!(survey.tally(), (4, 0));
    }

    /// Each of 60 locations has all the others as its children: ways through them are more than atoms in the world.
    #[test]
    fn a_tangle_of_locations_is_walked_in_no_time() {
        let all: Vec<String> = (1..=60).map(|id| id.to_string()).collect();
        let tangle = |id: &str| {
            let others = all.iter().filter(|other| *other != id);
            let children = others.map(|id| child(id, "Place")).collect();
            Some(reply("Place", vec![sensor(id, 1.0, None)], children))
        };
        let roots = [root("1", None, true)];
        let (findings, _, tally, _) = walk(&roots, Memory::default(), &tangle, |_| 0);
        assert_eq!((findings.len(), tally), (60, (0, 60)));
    }

    #[test]
    fn a_location_that_fails_keeps_its_children_and_its_name() {
        let roots = [root("1", None, true)];
        let (_, memory, ..) = walk(&roots, Memory::default(), &building, |_| 0);
        let without_root = |id: &str| building(id).filter(|_| id != "1");
        let (findings, memory, tally, _) = walk(&roots, memory, &without_root, |_| 0);
        assert_eq!(tally, (1, 3));
        assert_eq!(paths(&findings)[0], ("B", Some("HQ / Floor 2"), Some("2")));
        let (findings, ..) = walk(&roots, memory, &without_root, |_| 0);
        assert_eq!(
            findings.len(),
            2,
            "it is remembered for longer than one collection"
        );
    }
}

//! The directory alone, then beside a model that searches a list.

use super::*;
use proptest::prelude::*;
use telemetry_model::Hierarchy;

const TOMBSTONE: Duration = Duration::from_secs(300);

fn config(tombstones_max: usize, paths_max: usize) -> Config {
    Config { tombstone: TOMBSTONE, tombstones_max, paths_max, ..Config::default() }
}

fn key(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: Hierarchy::Unified, id }
}

fn owner_of(directory: &Directory, key: CgroupKey) -> Option<&Owner> {
    directory.owner(directory.resolve(OwnerKey::Cgroup(key))?)
}

fn unit(name: &str) -> Owner {
    Owner::Unit(name.to_owned())
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

type Visit<'a> = dyn FnMut(CgroupKey, &[u8]) + 'a;

/// A walk that finds these.
fn found(
    cgroups: &[(CgroupKey, &str)],
    left_out: usize,
) -> impl FnOnce(usize, &mut Visit<'_>) -> Result<Walked, Error> {
    move |_, visit| {
        cgroups.iter().for_each(|(key, path)| visit(*key, path.as_bytes()));
        Ok(Walked { cgroups: cgroups.len(), left_out })
    }
}

#[test]
fn the_fixed_owners_resolve_from_the_start_and_never_expire() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(0, 9));
    directory.born(key(1), b"/", start, start);
    directory.died(key(1), start);
    assert!(directory.expire(after(start, 9999)).is_empty());
    let resolve = |owner| directory.labels(directory.resolve(owner).unwrap()).get("unit").unwrap().to_owned();
    assert_eq!(resolve(OwnerKey::Kernel), "kernel");
    assert_eq!(resolve(OwnerKey::Overflow), "_other");
    for hierarchy in [Hierarchy::Unified, Hierarchy::Cpu, Hierarchy::Blkio] {
        assert_eq!(resolve(OwnerKey::Cgroup(CgroupKey { hierarchy, id: CgroupKey::ROOT_ID })), "/");
    }
}

#[test]
fn a_dead_cgroup_resolves_until_its_tombstone_goes() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 9));
    directory.born(key(5), b"/a.service", start, start);
    let id = directory.resolve(OwnerKey::Cgroup(key(5))).unwrap();
    directory.died(key(5), after(start, 10));
    assert!(directory.expire(after(start, 309)).is_empty());
    assert_eq!(directory.resolve(OwnerKey::Cgroup(key(5))), Some(id), "late events must find their owner");
    assert_eq!(directory.expire(after(start, 310)), [id]);
    assert_eq!(directory.resolve(OwnerKey::Cgroup(key(5))), None);
    assert_eq!(directory.labels(id).get("unit"), Some("_unresolved"));
}

#[test]
fn an_owner_lives_as_long_as_any_of_its_cgroups() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 9));
    let blkio = CgroupKey { hierarchy: Hierarchy::Blkio, id: 5 };
    directory.born(key(5), b"/a.service", start, start);
    directory.born(blkio, b"/a.service", start, start);
    directory.born(key(6), b"/a.service/worker", start, start);
    let id = directory.resolve(OwnerKey::Cgroup(key(5))).unwrap();
    assert_eq!(directory.resolve(OwnerKey::Cgroup(blkio)), Some(id));
    assert_eq!(directory.resolve(OwnerKey::Cgroup(key(6))), Some(id));
    directory.died(key(5), start);
    directory.died(key(6), start);
    assert!(directory.expire(after(start, 1000)).is_empty(), "its blkio side lives");
    directory.died(blkio, after(start, 1000));
    assert_eq!(directory.expire(after(start, 1300)), [id]);
}

#[test]
fn a_restarted_unit_goes_on_under_its_old_number() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 9));
    directory.born(key(5), b"/a.service", start, start);
    let id = directory.resolve(OwnerKey::Cgroup(key(5))).unwrap();
    directory.died(key(5), after(start, 1));
    directory.born(key(6), b"/a.service", after(start, 2), after(start, 2));
    assert_eq!(directory.resolve(OwnerKey::Cgroup(key(6))), Some(id));
    assert!(directory.expire(after(start, 5000)).is_empty());
}

#[test]
fn a_number_is_never_given_twice() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 9));
    directory.born(key(5), b"/a.service", start, start);
    let first = directory.resolve(OwnerKey::Cgroup(key(5))).unwrap();
    directory.died(key(5), start);
    assert_eq!(directory.expire(after(start, 300)), [first]);
    directory.born(key(6), b"/a.service", after(start, 301), after(start, 301));
    assert_ne!(directory.resolve(OwnerKey::Cgroup(key(6))), Some(first));
}

#[test]
fn a_renamed_cgroup_changes_its_owner_and_the_old_one_keeps_its_last_counts() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 9));
    directory.born(key(5), b"/old.service", start, start);
    let old = directory.resolve(OwnerKey::Cgroup(key(5))).unwrap();
    directory.born(key(5), b"/new.service", after(start, 1), after(start, 1));
    assert_eq!(owner_of(&directory, key(5)), Some(&unit("new.service")));
    assert!(directory.expire(after(start, 300)).is_empty());
    assert_eq!(directory.expire(after(start, 301)), [old]);
    assert_eq!(owner_of(&directory, key(5)), Some(&unit("new.service")));
}

#[test]
fn tombstones_beyond_the_limit_go_oldest_first_and_are_counted() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(2, 99));
    for id in 5..9 {
        directory.born(key(id), format!("/{id}.service").as_bytes(), start, start);
    }
    let ids: Vec<_> = (5..9).map(|id| directory.resolve(OwnerKey::Cgroup(key(id))).unwrap()).collect();
    for id in [7, 5, 8, 6] {
        directory.died(key(id), after(start, 20 - id));
    }
    assert_eq!(directory.expire(after(start, 21)), [ids[3], ids[2]], "8 and 7 died first");
    assert_eq!((directory.stats().limited_tombstones_total, directory.stats().tombstones), (2, 2));
}

#[test]
fn beyond_paths_max_the_dead_make_room_and_then_new_ones_are_counted() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 2));
    directory.born(key(5), b"/5.service", start, start);
    directory.born(key(6), b"/6.service", start, start);
    directory.died(key(5), start);
    directory.born(key(7), b"/7.service", start, start);
    assert_eq!(owner_of(&directory, key(5)), None);
    assert_eq!(owner_of(&directory, key(7)), Some(&unit("7.service")));
    directory.born(key(8), b"/8.service", start, start);
    assert_eq!(owner_of(&directory, key(8)), None);
    assert_eq!(directory.give_up(), OwnerId::UNRESOLVED);
    let stats = directory.stats();
    assert_eq!(
        (
            stats.cgroups,
            stats.limited_paths_total,
            stats.limited_tombstones_total,
            stats.unresolved_limit_total
        ),
        (2, 1, 1, 1)
    );
    assert_eq!(directory.expire(start).len(), 1, "the owner that made room is told");
}

#[test]
fn renames_without_end_stay_within_the_limit() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 4));
    for name in 0..100 {
        directory.born(key(5), format!("/{name}.service").as_bytes(), start, start);
    }
    assert!(directory.graves.len() <= 4 && directory.owners.len() <= 4 + 5, "{directory:?}");
}

#[test]
fn a_walk_marks_as_ended_what_it_does_not_see_any_more() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 9));
    directory.refresh(start, found(&[(key(5), "/5.service"), (key(6), "/6.service")], 0)).unwrap();
    assert_eq!(directory.stats().repaired_births_total, 0, "the first walk repairs nothing");
    directory.refresh(after(start, 1), found(&[(key(6), "/6.service"), (key(7), "/7.service")], 0)).unwrap();
    let stats = directory.stats();
    assert_eq!((stats.cgroups, stats.tombstones), (2, 1));
    assert_eq!((stats.repaired_births_total, stats.repaired_deaths_total, stats.walks_total), (1, 1, 2));
    assert_eq!(owner_of(&directory, key(5)), Some(&unit("5.service")));
    assert_eq!(directory.expire(after(start, 301)).len(), 1);
}

#[test]
fn a_walk_that_left_something_out_or_failed_ends_nothing() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 9));
    directory.born(key(5), b"/5.service", start, start);
    directory.refresh(start, found(&[(key(6), "/6.service")], 1)).unwrap();
    let failed = directory.refresh(start, |_, _| Err(Error::NoHierarchy { root: String::new() }));
    assert!(failed.is_err());
    let stats = directory.stats();
    assert_eq!(
        (stats.cgroups, stats.tombstones, stats.walk_failures_total, stats.walk_left_out),
        (2, 0, 1, 1)
    );
}

#[test]
fn a_walk_that_sees_a_buried_cgroup_brings_it_back() {
    let start = Instant::now();
    let mut directory = Directory::new(&config(9, 9));
    directory.born(key(5), b"/5.service", start, start);
    directory.died(key(5), start);
    directory.refresh(start, found(&[(key(5), "/5.service")], 0)).unwrap();
    assert_eq!((directory.stats().cgroups, directory.stats().tombstones), (1, 0));
    assert!(directory.expire(after(start, 9999)).is_empty());
}

/// What may happen to a directory.
#[derive(Clone, Debug)]
enum Step {
    Born(u64, u8),
    Died(u64),
    Walk(Vec<(u64, u8)>),
    Expire(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (2_u64..12, 0_u8..6).prop_map(|(id, name)| Step::Born(id, name)),
        3 => (2_u64..12).prop_map(Step::Died),
        1 => prop::collection::vec((2_u64..12, 0_u8..6), 0..8).prop_map(Step::Walk),
        2 => (0_u64..200).prop_map(Step::Expire),
    ];
    prop::collection::vec(step, 0..60)
}

/// One list of everything that keeps an owner: living cgroups (`died: None`), tombstones, and what renames left.
struct Model {
    records: Vec<Record>,
    tombstones_max: usize,
}

#[derive(Clone)]
struct Record {
    key: Option<CgroupKey>,
    name: u8,
    died: Option<(Instant, usize)>,
}

impl Model {
    fn find(&mut self, key: CgroupKey) -> Option<&mut Record> {
        self.records.iter_mut().find(|record| record.key == Some(key))
    }

    fn born(&mut self, key: CgroupKey, name: u8, now: Instant, order: usize) {
        if let Some(record) = self.find(key) {
            if record.name == name {
                record.died = None;
                return;
            }
            record.key = None;
            record.died = record.died.or(Some((now, order)));
        }
        self.records.push(Record { key: Some(key), name, died: None });
    }

    fn died(&mut self, key: CgroupKey, now: Instant, order: usize) {
        if let Some(record) = self.find(key) {
            record.died = record.died.or(Some((now, order)));
        }
    }

    fn expire(&mut self, now: Instant) {
        self.records.retain(|record| record.died.is_none_or(|(died, _)| now - died < TOMBSTONE));
        let mut deaths: Vec<_> = self.records.iter().filter_map(|record| record.died).collect();
        deaths.sort();
        let surplus = deaths.len().saturating_sub(self.tombstones_max);
        let dropped = &deaths[..surplus];
        self.records.retain(|record| record.died.is_none_or(|died| !dropped.contains(&died)));
    }

    fn names(&self) -> BTreeSet<u8> {
        self.records.iter().map(|record| record.name).collect()
    }
}

fn name_of(name: u8) -> String {
    format!("{name}.service")
}

proptest! {
    #[test]
    fn the_directory_does_what_a_searched_list_does(steps in steps(), tombstones_max in 0_usize..6) {
        let start = Instant::now();
        let mut now = start;
        let mut directory = Directory::new(&config(tombstones_max, 1000));
        let mut model = Model { records: Vec::new(), tombstones_max };
        let mut told: HashMap<OwnerId, Owner> = HashMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            // Room for the deaths of one walk, which happen in no order but at one moment of their own.
            let order = at * 100;
            now += Duration::from_millis(1);
            match step {
                Step::Born(id, name) => {
                    directory.born(key(id), format!("/{}", name_of(name)).as_bytes(), now, now);
                    model.born(key(id), name, now, order);
                }
                Step::Died(id) => {
                    directory.died(key(id), now);
                    model.died(key(id), now, order);
                }
                Step::Walk(mut seen) => {
                    seen.sort();
                    seen.dedup_by_key(|(id, _)| *id);
                    let paths: Vec<_> =
                        seen.iter().map(|(id, name)| (key(*id), format!("/{}", name_of(*name)))).collect();
                    let borrowed: Vec<_> = paths.iter().map(|(key, path)| (*key, path.as_str())).collect();
                    directory.refresh(now, found(&borrowed, 0)).unwrap();
                    for (at, (id, name)) in seen.iter().enumerate() {
                        model.born(key(*id), *name, now, order + at);
                    }
                    for id in 2..12 {
                        if !seen.iter().any(|(other, _)| *other == id) {
                            // A hash map tells them in any order: the model follows the directory's.
                            let grave = directory.cgroups.get(&key(id)).and_then(|cgroup| cgroup.grave);
                            let place = directory.graves.keys().position(|other| Some(*other) == grave);
                            model.died(key(id), now, order + 20 + place.unwrap_or(0));
                        }
                    }
                }
                Step::Expire(seconds) => {
                    now += Duration::from_secs(seconds);
                    let before = model.names();
                    model.expire(now);
                    let expected: BTreeSet<_> =
                        before.difference(&model.names()).map(|name| unit(&name_of(*name))).collect();
                    let gone: BTreeSet<_> =
                        directory.expire(now).iter().map(|id| told.remove(id).unwrap()).collect();
                    prop_assert_eq!(gone, expected);
                }
            }
            for id in 2..12 {
                let expected = model.find(key(id)).map(|record| unit(&name_of(record.name)));
                prop_assert_eq!(owner_of(&directory, key(id)), expected.as_ref());
            }
            told.extend(directory.owners.iter().map(|(id, named)| (*id, named.owner.clone())));
            prop_assert_eq!(directory.stats().owners, model.names().len());
        }
    }
}

//! Whose a count is, and the labels that say so.
//!
//! An owner comes from a cgroup path alone; [`Owner::Named`] is what a container becomes when its names are known, and
//! all containers of one name are one owner, so that a restart splits no counter. Labels are written in full, because an
//! absent label would be filled with the scraped target's own.

use std::sync::Arc;

use telemetry_model::{Label, Labels, Workload, escape};

use super::path::{self, Parsed, Role};

/// The value of `unit` for kernel threads and work that nobody is charged for.
const UNIT_KERNEL: &str = "kernel";
/// The value of `unit` for cgroups beyond the kernel side's slots.
const UNIT_OVERFLOW: &str = "_other";
/// The value of `unit` for cgroups that were gone before anybody saw their path.
const UNIT_UNRESOLVED: &str = "_unresolved";

/// Bytes of a unit's name at most. A cgroup's name has up to 255 and a path up to 4,095, each byte three after the
/// escape; what is longer is cut and told apart by a checksum.
pub const UNIT_BYTES_MAX: usize = 1024;

/// Begins the checksum of a cut name: the escape never writes it, so a cut name equals no whole one.
const CUT_MARK: &str = "%~";

/// What a container is called in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Names {
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The pod.
    pub pod: Arc<str>,
    /// The container; empty for what is the pod's own: its cgroup, its sandbox, its runtime's helpers.
    pub container: Arc<str>,
}

/// What a cgroup's path says of whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The owner, as far as a path can tell.
    pub owner: Owner,
    /// Kubernetes' word for how a pod's resources are guaranteed; empty outside pods.
    pub qos: &'static str,
    /// The runtime, where the path tells it.
    pub runtime: &'static str,
    /// Whether the cgroup lies below its container's own.
    pub is_nested: bool,
}

/// Whose work it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A container by its names, or a pod's own.
    Named(Names),
    /// A container whose names are not known. The container's id is empty for a pod's own cgroup, the pod's UID for a container outside pods.
    Container {
        /// The pod's UID with `-`; a static pod's is 32 hex digits.
        pod_uid: String,
        /// 64 hex digits.
        container_id: String,
    },
    /// Anything else on the node: the innermost service or slice, else the whole path. Printable.
    Unit(String),
    /// Kernel threads, and work that no cgroup was charged for.
    Kernel,
    /// Cgroups beyond the kernel side's slots.
    Overflow,
    /// A cgroup that was gone before anybody saw its path.
    Unresolved,
}

// === impl Found ===

impl Found {
    /// Reads a path from the root of its hierarchy.
    #[must_use]
    pub fn of_path(path: &[u8]) -> Self {
        let text = escape::printable(path);
        let Parsed { pod_uid, container_id, role, qos, runtime } = path::parse(&text);
        let owner = if pod_uid.is_empty() && container_id.is_empty() {
            Owner::unit_of(&text)
        } else {
            Owner::Container { pod_uid: pod_uid.replace('_', "-"), container_id: container_id.to_owned() }
        };
        Self { owner, qos, runtime, is_nested: role == Role::Nested }
    }
}

// === impl Owner ===

impl Owner {
    /// The owner of a cgroup, by its path from the root of its hierarchy.
    #[must_use]
    pub fn of_path(path: &[u8]) -> Self {
        Found::of_path(path).owner
    }

    fn unit_of(text: &str) -> Self {
        let unit = text.rsplit('/').find(|component| is_unit(component));
        Self::Unit(match unit {
            Some(unit) => bounded(unit),
            None if text.starts_with('/') => bounded(text),
            // No hierarchy has such a path; without the slash it could spell `kernel`.
            None => bounded(&format!("/{text}")),
        })
    }

    /// The labels that every series of this owner carries where workloads are told too.
    #[must_use]
    pub fn labels_with(&self, workload: &Workload) -> Labels {
        let own = self.labels();
        let more = [("workload", &workload.name), ("workload_type", &workload.kind)];
        let more = more.map(|(name, value)| Label::new(name, value.to_string()));
        Labels::new(own.iter().cloned().chain(more).collect())
    }

    /// The labels that every series of this owner carries.
    #[must_use]
    pub fn labels(&self) -> Labels {
        let name = |name: &'static str, value: &str| Label::new(name, value.to_owned());
        let mut labels = match self {
            Self::Named(Names { namespace, pod, container }) => {
                vec![name("namespace", namespace), name("pod", pod), name("container", container)]
            }
            _ => vec![Label::new("namespace", ""), Label::new("pod", ""), Label::new("container", "")],
        };
        let mut add = |name: &'static str, value: &str| {
            if !value.is_empty() {
                labels.push(Label::new(name, value.to_owned()));
            }
        };
        match self {
            Self::Named(_) => {}
            Self::Container { pod_uid, container_id } => {
                add("pod_uid", pod_uid);
                add("container_id", container_id);
            }
            Self::Unit(unit) => add("unit", unit),
            Self::Kernel => add("unit", UNIT_KERNEL),
            Self::Overflow => add("unit", UNIT_OVERFLOW),
            Self::Unresolved => add("unit", UNIT_UNRESOLVED),
        }
        Labels::new(labels)
    }
}

fn is_unit(component: &str) -> bool {
    component.ends_with(".service") || component.ends_with(".slice")
}

/// A name as it is, or its beginning and a checksum of the whole.
fn bounded(name: &str) -> String {
    if name.len() <= UNIT_BYTES_MAX {
        return name.to_owned();
    }
    let sum = format!("{CUT_MARK}{:016x}", fnv1a(name.as_bytes()));
    let mut end = UNIT_BYTES_MAX - sum.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let (begin, _) = name.split_at(end);
    format!("{begin}{sum}")
}

/// FNV-1a, 64 bits: tells apart names that share their first thousand bytes. Whoever makes two of them collide has
/// merged two cgroups of one parent, which are his own.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "62c5feb2-0cb6-4693-876c-4b54014e085e";
    const ID: &str = "22ebc6fd6681fe43a65f392647adf215c94c4e263bbbd7cbd4cce0980022bfb7";

    fn unit(path: &[u8], expected: &str) {
        assert_eq!(Owner::of_path(path), Owner::Unit(expected.to_owned()), "{}", path.escape_ascii());
    }

    fn container(path: &str, pod_uid: &str, container_id: &str) {
        let expected =
            Owner::Container { pod_uid: pod_uid.to_owned(), container_id: container_id.to_owned() };
        assert_eq!(Owner::of_path(path.as_bytes()), expected, "{path}");
    }

    #[test]
    fn a_container_is_known_by_pod_uid_and_container_id() {
        container(&format!("/kubepods/burstable/pod{UID}/{ID}"), UID, ID);
        let slice = UID.replace('-', "_");
        container(&format!("/kubepods.slice/kubepods-pod{slice}.slice/crio-{ID}.scope"), UID, ID);
        container(&format!("/kubepods.slice/kubepods-pod{slice}.slice/crio-{ID}.scope/container"), UID, ID);
        let hash = "7260904bbd08e72e4dff95d9fccd2ee8";
        container(&format!("/kubepods/pod{hash}/{ID}"), hash, ID);
    }

    #[test]
    fn a_pods_own_cgroup_and_its_overhead_have_no_container() {
        container(&format!("/kubepods/burstable/pod{UID}"), UID, "");
        container(&format!("/kubepods/burstable/pod{UID}/crio-conmon-{ID}"), UID, "");
    }

    #[test]
    fn a_container_outside_pods_has_no_pod() {
        container(&format!("/system.slice/docker-{ID}.scope"), "", ID);
        container(&format!("/docker/{ID}/init"), "", ID);
    }

    #[test]
    fn a_unit_is_the_innermost_service_or_slice_else_the_whole_path() {
        unit(b"/system.slice/sshd.service", "sshd.service");
        unit(b"/system.slice/sshd.service/worker", "sshd.service");
        unit(b"/user.slice/user-1000.slice/session-2.scope", "user-1000.slice");
        unit(b"/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope", "app.slice");
        unit(b"/mytest/a", "/mytest/a");
        unit(b"/init.scope", "/init.scope");
        unit(b"/", "/");
        unit(b"", "/");
    }

    #[test]
    fn hostile_names_are_escaped() {
        unit(b"/system.slice/a\nb\".service", "a%0Ab\".service");
        unit(b"/\xff\x1b[31m", "/%FF%1B[31m");
    }

    #[test]
    fn no_path_can_pose_as_the_kernel_or_the_overflow() {
        for name in ["kernel", "_other", "_unresolved"] {
            unit(name.as_bytes(), &format!("/{name}"));
            unit(format!("/{name}").as_bytes(), &format!("/{name}"));
        }
    }

    #[test]
    fn an_endless_path_is_cut_and_still_told_apart() {
        let long = |last: &str| format!("/{}/{last}", "é".repeat(4000));
        let (Owner::Unit(a), Owner::Unit(b)) =
            (Owner::of_path(long("a").as_bytes()), Owner::of_path(long("b").as_bytes()))
        else {
            panic!("a path without a container is a unit");
        };
        assert!(a.len() <= UNIT_BYTES_MAX && b.len() <= UNIT_BYTES_MAX);
        assert_ne!(a, b);
    }

    fn labels(owner: &Owner, expected: &[(&'static str, &'static str)]) {
        assert_eq!(owner.labels(), Labels::fixed(expected), "{owner:?}");
    }

    #[test]
    fn every_owner_has_the_three_name_labels_and_what_identifies_it() {
        let names = [("namespace", ""), ("pod", ""), ("container", "")];
        let with = |more: &[(&'static str, &'static str)]| [&names[..], more].concat();
        labels(&Owner::Kernel, &with(&[("unit", "kernel")]));
        labels(&Owner::Overflow, &with(&[("unit", "_other")]));
        labels(&Owner::Unresolved, &with(&[("unit", "_unresolved")]));
        labels(&Owner::of_path(b"/a.service"), &with(&[("unit", "a.service")]));
        let both = Owner::Container { pod_uid: UID.to_owned(), container_id: ID.to_owned() };
        labels(&both, &with(&[("pod_uid", UID), ("container_id", ID)]));
        let pod = Owner::Container { pod_uid: UID.to_owned(), container_id: String::new() };
        labels(&pod, &with(&[("pod_uid", UID)]));
        let named = Names { namespace: "shop".into(), pod: "web-7c9".into(), container: "php".into() };
        labels(&Owner::Named(named), &[("namespace", "shop"), ("pod", "web-7c9"), ("container", "php")]);
    }

    proptest! {
        #[test]
        fn a_unit_is_printable_and_bounded(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let mut path = b"/".to_vec();
            path.extend(bytes);
            if let Owner::Unit(unit) = Owner::of_path(&path) {
                prop_assert!(!unit.is_empty() && unit.len() <= UNIT_BYTES_MAX);
                prop_assert!(unit.chars().all(|character| !character.is_control()));
            }
        }

        #[test]
        fn two_paths_without_units_are_two_owners(a in "/[a-z%\n]{1,12}", b in "/[a-z%\n]{1,12}") {
            prop_assert_eq!(a == b, Owner::of_path(a.as_bytes()) == Owner::of_path(b.as_bytes()));
        }
    }
}

//! From a cgroup path alone to QoS class, pod UID, container id and runtime: no kubelet, no runtime socket.
//!
//! Rule: the first component below the node's root that names a pod; the container is the component right below it,
//! and anything deeper belongs to that container, so that a workload that makes cgroups of its own cannot pose as
//! another pod. Where no pod is named, the first component that names a container. The layouts are those of
//! containerd, CRI-O, cri-dockerd, podman and kata under both cgroup drivers; `vectors.json` holds one path of each.

/// Where in the tree of a node a cgroup sits.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub enum Role {
    /// Neither a pod nor a container: a system service, a slice, the root.
    #[default]
    Node,
    /// A pod's own cgroup: the sum of its containers and its overhead.
    Pod,
    /// Below a pod, but no container: CRI-O's conmon, or a layout that we do not know.
    Overhead,
    /// A container's own cgroup. The pause container is one too: only the OCI bundle tells it apart.
    Container,
    /// Below a container: crun's `container` group, systemd or docker in a pod. Counts as that container.
    Nested,
}

/// What a path says. Empty strings where it says nothing.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub struct Parsed<'a> {
    /// Where in the tree the cgroup sits.
    pub role: Role,
    /// `guaranteed`, `burstable`, `besteffort`.
    pub qos: &'static str,
    /// As written in the path: a UUID with `-` or, under the systemd driver, `_`; or 32 hex digits for a static pod.
    pub pod_uid: &'a str,
    /// 64 hex digits.
    pub container_id: &'a str,
    /// `containerd`, `crio`, `docker`, `podman`, `kata`; the cgroupfs driver of containerd and docker leaves no trace.
    pub runtime: &'static str,
}

/// What one component says of a pod.
struct Pod<'a> {
    qos: &'static str,
    uid: &'a str,
    container: Option<Container<'a>>,
}

/// What one component says of a container. The id is empty for a runtime's helper beside the container.
#[derive(Clone, Copy, Default)]
struct Container<'a> {
    id: &'a str,
    runtime: &'static str,
}

/// Prefixes of container components, with the runtime that writes them.
const CONTAINER_PREFIXES: [(&str, &str); 7] = [
    ("cri-containerd-", "containerd"),
    ("crio-", "crio"),
    ("docker-", "docker"),
    ("libpod-", "podman"),
    ("containerd-", "containerd"),
    ("kata_", "kata"),
    ("nerdctl-", "containerd"),
];

/// Hex digits of a container id, and of a static pod's UID.
const CONTAINER_ID_LENGTH: usize = 64;
const STATIC_POD_UID_LENGTH: usize = 32;
const UUID_LENGTH: usize = 36;

// === impl Parsed ===

impl<'a> Parsed<'a> {
    /// A pod's component was met: what follows it decides between the pod, its overhead and its containers.
    fn of_pod(pod: &Pod<'a>, mut below: impl Iterator<Item = &'a str>) -> Self {
        let mut parsed = Self { role: Role::Pod, qos: pod.qos, pod_uid: pod.uid, ..Self::default() };
        let inner =
            pod.container.or_else(|| below.next().map(|component| container(component).unwrap_or_default()));
        if let Some(inner) = inner {
            parsed.container_id = inner.id;
            parsed.runtime = inner.runtime;
            parsed.role = match (inner.id.is_empty(), below.next().is_some()) {
                (true, _) => Role::Overhead,
                (false, false) => Role::Container,
                (false, true) => Role::Nested,
            };
        }
        parsed
    }
}

/// Reads one absolute cgroup path. Escaping it before changes nothing: the escape sign is part of no id.
#[must_use]
pub fn parse(path: &str) -> Parsed<'_> {
    let mut parsed = Parsed::default();
    let (mut parent, mut grandparent) = ("", "");
    let mut components = path.split('/').filter(|component| !component.is_empty());
    while let Some(component) = components.next() {
        if let Some(pod) = slice_pod(component).or_else(|| plain_pod(component, parent, grandparent)) {
            return Parsed::of_pod(&pod, components);
        }
        if !parsed.container_id.is_empty() {
            parsed.role = Role::Nested;
        } else if let Some(found) = container(component).filter(|found| !found.id.is_empty()) {
            parsed.role = Role::Container;
            parsed.container_id = found.id;
            parsed.runtime = found.runtime;
        }
        (grandparent, parent) = (parent, component);
    }
    parsed
}

/// `cri-containerd-<id>.scope`, `crio-<id>`, `<id>`.
fn container(component: &str) -> Option<Container<'_>> {
    let name = component.strip_suffix(".scope").unwrap_or(component);
    if is_container_id(name) {
        return Some(Container { id: name, runtime: "" });
    }
    if let Some(id) = name.strip_prefix("crio-conmon-") {
        return is_container_id(id).then_some(Container { id: "", runtime: "crio" });
    }
    CONTAINER_PREFIXES.iter().find_map(|&(prefix, runtime)| {
        let id = name.strip_prefix(prefix)?;
        is_container_id(id).then_some(Container { id, runtime })
    })
}

/// `pod<uid>`, the cgroupfs driver's form. It counts only where the kubelet puts it, or where the view begins
/// above or beside it: anybody with a delegated subtree can make a directory of that name elsewhere.
fn plain_pod<'a>(component: &'a str, parent: &str, grandparent: &str) -> Option<Pod<'a>> {
    let uid = component.strip_prefix("pod").filter(|uid| is_pod_uid(uid))?;
    let qos = match (grandparent, parent) {
        (_, "kubepods") => "guaranteed",
        ("kubepods", "burstable") => "burstable",
        ("kubepods", "besteffort") => "besteffort",
        (_, "" | "..") => "",
        _ => return None,
    };
    Some(Pod { qos, uid, container: None })
}

/// `...kubepods[-qos]-pod<uid>.slice`, `...slice:cri-containerd:<id>`: the systemd driver's forms.
fn slice_pod(component: &str) -> Option<Pod<'_>> {
    let (slice, inline) = match component.split_once(':') {
        Some((slice, inline)) => (slice, Some(inline)),
        None => (component, None),
    };
    let (head, uid) = slice.strip_suffix(".slice")?.rsplit_once("-pod")?;
    if !is_pod_uid(uid) {
        return None;
    }
    let (_, class) = head.rsplit_once("kubepods")?;
    let qos = match class {
        "" => "guaranteed",
        "-burstable" => "burstable",
        "-besteffort" => "besteffort",
        _ => return None,
    };
    let container = inline.and_then(|inline| {
        let (prefix, id) = inline.split_once(':')?;
        let runtime = match prefix {
            "cri-containerd" => "containerd",
            "crio" => "crio",
            "docker" => "docker",
            _ => "",
        };
        is_container_id(id).then_some(Container { id, runtime })
    });
    Some(Pod { qos, uid, container })
}

fn is_container_id(text: &str) -> bool {
    text.len() == CONTAINER_ID_LENGTH && text.bytes().all(is_hex_digit)
}

/// A UUID (with `-`, or with `_` as systemd's slices need it), or the hex digits of a static pod's config hash.
fn is_pod_uid(text: &str) -> bool {
    let separated_by = |separator: u8| {
        text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == separator,
            _ => is_hex_digit(byte),
        })
    };
    match text.len() {
        STATIC_POD_UID_LENGTH => text.bytes().all(is_hex_digit),
        UUID_LENGTH => separated_by(b'-') || separated_by(b'_'),
        _ => false,
    }
}

/// Lower case only, as every runtime writes ids: two spellings of one id would be two owners.
fn is_hex_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use proptest::prelude::*;
    use telemetry_model::escape::printable;

    #[test]
    fn every_layout_of_the_vectors_is_read() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("path/vectors.json")).unwrap();
        let vectors = vectors.as_array().unwrap();
        assert!(vectors.len() > 20, "the vectors must be there to be read");
        for vector in vectors {
            let field = |name: &str| vector[name].as_str().unwrap();
            let parsed = parse(field("path"));
            let role = format!("{:?}", parsed.role).to_lowercase();
            let uid = parsed.pod_uid.replace('_', "-");
            assert_eq!(
                (role.as_str(), parsed.qos, uid.as_str(), parsed.container_id, parsed.runtime),
                (field("role"), field("qos"), field("pod"), field("container"), field("runtime")),
                "{}",
                field("name")
            );
        }
    }

    #[test]
    fn hostile_components_are_refused() {
        let uid = "62c5feb2-0cb6-4693-876c-4b54014e085e";
        let upper = uid.to_uppercase();
        let mixed = uid.replacen('-', "_", 2);
        for path in [
            "",
            "//",
            "/pod",
            "/podé",
            "/kubepods-podx.slice",
            "/a:b:c",
            "/-pod.slice",
            "/kubepods/pod8a1b2c3d/x",
            "/kubepods/pod%62c5feb2-0cb6-4693-876c-4b54014e08",
            &format!("/kubepods/pod{upper}"),
            &format!("/kubepods/pod{mixed}"),
            &format!("/kubepods-other-pod{uid}.slice"),
            &format!("/kubepods/pod{uid}\n"),
        ] {
            assert_eq!(parse(path), Parsed::default(), "{path:?}");
        }
    }

    #[test]
    fn a_delegated_subtree_cannot_pose_as_a_pod_of_the_cgroupfs_driver() {
        let path = "/user.slice/user-1000.slice/user@1000.service/pod62c5feb2-0cb6-4693-876c-4b54014e085e/x";
        assert_eq!(parse(path), Parsed::default());
    }

    #[test]
    fn the_outermost_pod_wins() {
        let (outer, inner) = ("a".repeat(64), "b".repeat(64));
        let (mine, theirs) = ("1".repeat(32), "2".repeat(32));
        let path = format!("/kubepods/pod{mine}/{outer}/kubepods/pod{theirs}/{inner}");
        let parsed = parse(&path);
        assert_eq!((parsed.role, parsed.pod_uid, parsed.container_id), (Role::Nested, &*mine, &*outer));
    }

    #[test]
    fn a_path_takes_two_microseconds_at_most() {
        let path = "/kubepods.slice/kubepods-burstable.slice/\
            kubepods-burstable-pod62c5feb2_0cb6_4693_876c_4b54014e085e.slice/\
            cri-containerd-22ebc6fd6681fe43a65f392647adf215c94c4e263bbbd7cbd4cce0980022bfb7.scope";
        const ROUNDS: u32 = 100;
        // The fastest of many batches: what the code takes, not what else the machine does meanwhile.
        let fastest = (0..400)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..ROUNDS {
                    std::hint::black_box(parse(std::hint::black_box(path)));
                }
                start.elapsed() / ROUNDS
            })
            .min()
            .unwrap();
        // Unoptimised code is about ten times slower; the limit is held there with that factor.
        let limit = if cfg!(debug_assertions) { Duration::from_micros(20) } else { Duration::from_micros(2) };
        assert!(fastest <= limit, "{fastest:?} a path, limit {limit:?}");
    }

    /// Paths made of the words that the parser looks for, in any order.
    fn path_of_words() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "kubepods",
            "burstable",
            "besteffort",
            "pod",
            "-pod",
            ".slice",
            ".scope",
            ":",
            "_",
            "-",
            "..",
            "é",
            "cri-containerd-",
            "crio-conmon-",
            "62c5feb2-0cb6-4693-876c-4b54014e085e",
            "/",
            "/",
            "/",
            "22ebc6fd6681fe43a65f392647adf215c94c4e263bbbd7cbd4cce0980022bfb7",
            "7260904bbd08e72e4dff95d9fccd2ee8",
        ]);
        prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
    }

    fn holds_together(parsed: &Parsed<'_>) {
        assert!(parsed.pod_uid.is_empty() || is_pod_uid(parsed.pod_uid));
        assert!(parsed.container_id.is_empty() || is_container_id(parsed.container_id));
        assert_eq!(parsed.role == Role::Node, parsed.pod_uid.is_empty() && parsed.container_id.is_empty());
        assert_eq!(matches!(parsed.role, Role::Container | Role::Nested), !parsed.container_id.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            holds_together(&parse(&printable(&bytes)));
        }

        #[test]
        fn any_order_of_known_words_gives_a_consistent_answer(path in path_of_words()) {
            holds_together(&parse(&path));
        }
    }
}

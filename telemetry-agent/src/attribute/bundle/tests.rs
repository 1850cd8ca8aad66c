//! Files as the runtimes write them, and files that somebody wrote to do harm.

use super::*;
use proptest::prelude::*;

const UID: &str = "8a1b2c3d-0000-4000-8000-000000000001";

fn containerd(annotations: &[(&str, &str)]) -> Vec<u8> {
    let pairs: serde_json::Map<String, serde_json::Value> = annotations
        .iter()
        .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), (*value).to_owned().into()))
        .collect();
    // The order and the neighbours of a real file.
    let file = serde_json::json!({
        "ociVersion": "1.0.2-dev",
        "process": {"args": ["/bin/true"], "env": ["A=1"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "hooks": {},
        "annotations": pairs,
        "linux": {"cgroupsPath": format!("/kubepods/burstable/pod{UID}/x")},
    });
    serde_json::to_vec(&file).unwrap()
}

const CONTAINER: [(&str, &str); 7] = [
    ("container-name", "main"),
    ("container-type", "container"),
    ("image-name", "localhost/busybox:1"),
    ("sandbox-id", "7ecc1a18b468f31c7d43c7ff6b7278044ab338e0f09a8f2703f562115b3877c3"),
    ("sandbox-name", "web-7c9"),
    ("sandbox-namespace", "shop"),
    ("sandbox-uid", UID),
];

fn with(key: &str, value: &str) -> Vec<(&'static str, String)> {
    CONTAINER.iter().map(|(k, v)| (*k, if *k == key { value.to_owned() } else { (*v).to_owned() })).collect()
}

fn parsed(annotations: &[(&'static str, String)]) -> Result<Bundle, Refusal> {
    let pairs: Vec<(&str, &str)> = annotations.iter().map(|(key, value)| (*key, value.as_str())).collect();
    parse(&containerd(&pairs), Format::Oci)
}

fn bundle(container: &str, image: &str) -> Bundle {
    let names = Names { namespace: "shop".into(), pod: "web-7c9".into(), container: container.into() };
    Bundle { names, pod_uid: UID.to_owned(), image: image.to_owned() }
}

#[test]
fn containerd_tells_pod_container_and_image() {
    assert_eq!(parse(&containerd(&CONTAINER), Format::Oci), Ok(bundle("main", "localhost/busybox:1")));
}

#[test]
fn a_sandbox_is_the_pods_own() {
    let sandbox = [
        ("container-type", "sandbox"),
        ("sandbox-name", "web-7c9"),
        ("sandbox-namespace", "shop"),
        ("sandbox-uid", UID),
    ];
    assert_eq!(parse(&containerd(&sandbox), Format::Oci), Ok(bundle("", "")));
}

#[test]
fn crio_tells_the_same_in_its_own_words() {
    let file = serde_json::json!({"annotations": {
        "io.kubernetes.container.name": "main",
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.ImageName": "quay.io/shop/web:3",
        "io.kubernetes.cri-o.SandboxID": "x",
        "io.kubernetes.pod.name": "web-7c9",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": UID,
    }});
    let bytes = serde_json::to_vec(&file).unwrap();
    assert_eq!(parse(&bytes, Format::Oci), Ok(bundle("main", "quay.io/shop/web:3")));
}

#[test]
fn dockerd_tells_it_as_labels() {
    let file = |kind: &str| {
        serde_json::to_vec(&serde_json::json!({
            "ID": "x",
            "Config": {"Image": "sha256:abc", "Labels": {
                "io.kubernetes.container.name": if kind == "container" { "main" } else { "POD" },
                "io.kubernetes.docker.type": kind,
                "io.kubernetes.pod.name": "web-7c9",
                "io.kubernetes.pod.namespace": "shop",
                "io.kubernetes.pod.uid": UID,
            }},
        }))
        .unwrap()
    };
    assert_eq!(parse(&file("container"), Format::Docker), Ok(bundle("main", "sha256:abc")));
    assert_eq!(parse(&file("podsandbox"), Format::Docker), Ok(bundle("", "sha256:abc")));
    let plain = br#"{"Config": {"Image": "redis", "Labels": null}}"#;
    assert_eq!(parse(plain, Format::Docker), Err(Refusal::NoPod));
}

#[test]
fn an_older_containerd_that_tells_no_uid_is_read() {
    let without: Vec<_> = CONTAINER.into_iter().filter(|(key, _)| *key != "sandbox-uid").collect();
    assert_eq!(parse(&containerd(&without), Format::Oci).unwrap().pod_uid, "");
}

#[test]
fn a_container_without_a_pod_names_nobody() {
    assert_eq!(parse(&containerd(&[]), Format::Oci), Err(Refusal::NoPod));
    assert_eq!(parse(b"{}", Format::Oci), Err(Refusal::NoPod));
    let podman = br#"{"annotations": {"io.container.manager": "libpod"}}"#;
    assert_eq!(parse(podman, Format::Oci), Err(Refusal::NoPod));
}

#[test]
fn what_kubernetes_would_not_take_as_a_name_names_nobody() {
    let long = "a".repeat(300);
    for key in ["container-name", "sandbox-name", "sandbox-namespace"] {
        for value in ["", "Shop", "a b", "a\nb", "a\"", "é", "../x", "a_b", long.as_str()] {
            assert_eq!(parsed(&with(key, value)), Err(Refusal::NoPod), "{key} = {value:?}");
        }
    }
    assert_eq!(parsed(&with("container-type", "other")), Err(Refusal::NoPod));
}

#[test]
fn an_image_that_is_none_is_left_out() {
    for value in ["a b", "a\u{1b}[31m", "é", &"x".repeat(600)] {
        assert_eq!(parsed(&with("image-name", value)).unwrap().image, "", "{value:?}");
    }
}

#[test]
fn a_file_cut_anywhere_is_malformed() {
    let whole = containerd(&CONTAINER);
    for end in 0..whole.len() {
        assert_eq!(parse(&whole[..end], Format::Oci), Err(Refusal::Malformed), "cut at {end}");
    }
}

#[test]
fn hostile_json_is_refused() {
    let deep = [b"{\"annotations\":".repeat(100_000), b"1".to_vec()].concat();
    for bytes in
        [&deep[..], b"[7]", b"null", b"{\"annotations\": {\"a\": {}}}", b"\xff", b"{\"annotations\": 7}"]
    {
        let shown: Vec<u8> = bytes.iter().copied().take(40).collect();
        assert_eq!(parse(bytes, Format::Oci), Err(Refusal::Malformed), "{}", shown.escape_ascii());
    }
    assert_eq!(parse(b"{\"Config\": 7}", Format::Docker), Err(Refusal::Malformed));
}

#[test]
fn the_runtime_that_the_path_tells_is_asked_first_and_all_others_after() {
    let files = |runtime| -> Vec<String> {
        candidates(Path::new("/host"), runtime, "I").map(|found| found.file.display().to_string()).collect()
    };
    let unknown = files("");
    assert_eq!(unknown[0], "/host/run/containerd/io.containerd.runtime.v2.task/k8s.io/I/config.json");
    assert_eq!(files("crio")[0], "/host/run/containers/storage/overlay-containers/I/userdata/config.json");
    assert_eq!(files("docker")[0], "/host/var/lib/docker/containers/I/config.v2.json");
    for runtime in ["containerd", "crio", "docker", "kata"] {
        let (mut all, mut told) = (unknown.clone(), files(runtime));
        all.sort();
        told.sort();
        assert_eq!(all, told, "{runtime}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(&bytes, Format::Oci);
        let _ = parse(&bytes, Format::Docker);
    }
}

//! Images, made of files without an engine and without a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cache, shell};

/// What an image is called and what it runs.
pub struct Image<'a> {
    /// Its name with its tag.
    pub name: &'a str,
    /// What runs.
    pub entrypoint: &'a [&'a str],
    /// Its arguments, unless others are given.
    pub arguments: &'a [&'a str],
}

/// The image of the tests' pods: busybox alone, which waits until it is told otherwise.
///
/// # Errors
/// When a file cannot be made.
pub fn of_busybox(programs: &Path, name: &str) -> Result<PathBuf> {
    let busybox = programs.join("bin/busybox");
    let entry = cache::entry("cluster/image", |dir| {
        let root = dir.join("root");
        fs::create_dir_all(root.join("bin")).with_context(|| format!("create {}", root.display()))?;
        fs::copy(&busybox, root.join("bin/busybox")).context("copy busybox")?;
        let image = Image { name, entrypoint: &["/bin/busybox"], arguments: &["sleep", "2147483647"] };
        image.archive(dir, &root)
    })?;
    Ok(entry.join("image.tar"))
}

/// The image of a program and the libraries that it is linked to.
///
/// # Errors
/// When a file cannot be made.
pub fn of_program(dir: &Path, program: &Path, name: &str) -> Result<PathBuf> {
    let root = dir.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    fs::create_dir_all(root.join("bin")).with_context(|| format!("create {}", root.display()))?;
    let inside = root.join("bin").join(program.file_name().context("a program has a name")?);
    fs::copy(program, &inside).with_context(|| format!("copy {}", program.display()))?;
    // Symbols are of no use without sources.
    shell::quiet(Command::new("strip").arg(&inside))?;
    let libraries = shell::quiet(Command::new("ldd").arg(program))?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        let folder = to.parent().context("a library is in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::copy(library, &to).with_context(|| format!("copy {library}"))?;
    }
    let entrypoint = format!("/bin/{}", inside.file_name().unwrap_or_default().to_string_lossy());
    Image { name, entrypoint: &[&entrypoint], arguments: &["run"] }.archive(dir, &root)?;
    Ok(dir.join("image.tar"))
}

// === impl Image ===

impl Image<'_> {
    /// Writes `image.tar` into the folder, as every runtime takes it, from the files below `root`.
    fn archive(&self, dir: &Path, root: &Path) -> Result<()> {
        let blobs = dir.join("image/blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("create {}", blobs.display()))?;
        let layer = blobs.join("layer");
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--mtime=@0", "--file"]).arg(&layer);
        shell::quiet(tar.arg("--directory").arg(root).arg("."))?;
        let layer = Blob::take(&blobs, &layer)?;
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Cmd": self.arguments, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        });
        let config = Blob::of(&blobs, &config)?;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.described("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.described("application/vnd.oci.image.layer.v1.tar")],
        });
        let manifest = Blob::of(&blobs, &manifest)?;
        let mut described = manifest.described("application/vnd.oci.image.manifest.v1+json");
        if let Some(fields) = described.as_object_mut() {
            fields.insert("annotations".into(), serde_json::json!({"io.containerd.image.name": self.name}));
        }
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [described]});
        fs::write(dir.join("image/index.json"), index.to_string()).context("write the image's index")?;
        fs::write(dir.join("image/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .context("write oci-layout")?;
        let mut tar = Command::new("tar");
        tar.args(["--create", "--file"]).arg(dir.join("image.tar"));
        shell::quiet(tar.arg("--directory").arg(dir.join("image")).args([
            "oci-layout",
            "index.json",
            "blobs",
        ]))
        .map(drop)
    }
}

/// A part of an image, called by its checksum.
struct Blob {
    digest: String,
    bytes: u64,
}

// === impl Blob ===

impl Blob {
    fn of(folder: &Path, value: &serde_json::Value) -> Result<Self> {
        let file = folder.join("part");
        fs::write(&file, value.to_string()).with_context(|| format!("write {}", file.display()))?;
        Self::take(folder, &file)
    }

    /// Gives a file of the folder its name.
    fn take(folder: &Path, file: &Path) -> Result<Self> {
        let line = shell::quiet(Command::new("sha256sum").arg(file))?;
        let sum = line.split_whitespace().next().context("sha256sum says nothing")?;
        let bytes = fs::metadata(file).with_context(|| format!("look at {}", file.display()))?.len();
        fs::rename(file, folder.join(sum)).with_context(|| format!("rename {}", file.display()))?;
        Ok(Self { digest: format!("sha256:{sum}"), bytes })
    }

    fn described(&self, media_type: &str) -> serde_json::Value {
        serde_json::json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes})
    }
}

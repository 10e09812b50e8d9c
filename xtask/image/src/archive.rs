//! Archive of an image. Its bytes depend only on its content: the same image always has the same bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use flate2::{Compression, GzBuilder};
use jiff::Timestamp;
use oci_spec::distribution::Reference;
use oci_spec::image::{
    ANNOTATION_REF_NAME, ConfigBuilder, Descriptor, Digest, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, PlatformBuilder, RootFsBuilder, SCHEMA_VERSION,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::StaticProgram;

/// Default user of programs. It is a number, since an image has no user names, and so that a kubelet can see that it is
/// not root.
pub const USER: &str = "65532:65532";

/// Annotation with the full name of an imported image, which containerd reads. The specification's own annotation has
/// only the tag.
const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";

/// Content and description of an image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Name for imports and pushes.
    pub reference: Reference,
    /// Files of the image.
    pub root: Root,
    /// Annotations of the image, such as `org.opencontainers.image.version`.
    pub labels: BTreeMap<String, String>,
    /// Time of the last change of its sources.
    pub created: Timestamp,
}

/// Content of an image: the program that a container runs, other programs, and the files that they read.
#[derive(Clone, Debug)]
pub struct Root {
    /// The program that a container runs.
    pub program: StaticProgram,
    /// Path of the program, such as `/pause`.
    pub path: String,
    /// Other programs, by their absolute paths.
    pub beside: BTreeMap<String, StaticProgram>,
    /// Other files, by their absolute paths.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A file of an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct File<'image> {
    /// Content of the file.
    pub bytes: &'image [u8],
    /// Mode of the file.
    pub mode: u32,
}

/// An image as a tar archive of an OCI image layout.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Archive {
    /// The archive's bytes.
    pub bytes: Vec<u8>,
    /// Digest of the image's manifest, for pulls.
    pub digest: String,
}

impl Root {
    /// Every file by its absolute path. Root owns all of them.
    #[must_use]
    pub fn files(&self) -> BTreeMap<&str, File<'_>> {
        let read = self.files.iter().map(|(path, bytes)| (path.as_str(), File { bytes, mode: 0o644 }));
        let beside = self.beside.iter().map(|(path, program)| (path.as_str(), program));
        let programs = beside.chain([(self.path.as_str(), &self.program)]);
        read.chain(programs.map(|(path, program)| (path, File { bytes: program.bytes(), mode: 0o755 }))).collect()
    }
}

/// Makes an image's archive.
///
/// # Errors
/// If a path cannot be written to an archive.
pub fn pack(image: &Image) -> anyhow::Result<Archive> {
    let layer = layer(&image.root.files())?;
    let compressed = gzip(&layer)?;
    let configuration = configuration(image, &digest(&layer))?;
    let manifest = document(
        &ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, &configuration)?)
            .layers([descriptor(MediaType::ImageLayerGzip, &compressed)?])
            .build()?,
    )?;
    let layout = document(&OciLayoutBuilder::default().image_layout_version("1.0.0").build()?)?;

    let mut files =
        BTreeMap::from([("oci-layout".to_owned(), layout), ("index.json".to_owned(), index(image, &manifest)?)]);
    let digest = digest(&manifest);
    files.extend([manifest, configuration, compressed].map(|blob| (blob_path(&blob), blob)));
    let files: BTreeMap<_, _> =
        files.iter().map(|(path, bytes)| (path.as_str(), File { bytes, mode: 0o644 })).collect();
    Ok(Archive { bytes: tar(&files, &BTreeSet::new())?, digest })
}

fn configuration(image: &Image, layer: &str) -> anyhow::Result<Vec<u8>> {
    let run = ConfigBuilder::default()
        .user(USER)
        .entrypoint([image.root.path.clone()])
        .working_dir("/")
        .labels(image.labels.clone().into_iter().collect::<HashMap<_, _>>())
        .build()?;
    document(
        &ImageConfigurationBuilder::default()
            .created(image.created.to_string())
            .architecture(image.root.program.architecture().clone())
            .os(Os::Linux)
            .config(run)
            .rootfs(RootFsBuilder::default().typ("layers").diff_ids([layer.to_owned()]).build()?)
            .build()?,
    )
}

fn index(image: &Image, manifest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut names = HashMap::from([(ANNOTATION_IMAGE_NAME.to_owned(), image.reference.whole())]);
    names.extend(image.reference.tag().map(|tag| (ANNOTATION_REF_NAME.to_owned(), tag.to_owned())));
    let mut descriptor = descriptor(MediaType::ImageManifest, manifest)?;
    descriptor.set_annotations(Some(names));
    descriptor.set_platform(Some(
        PlatformBuilder::default().architecture(image.root.program.architecture().clone()).os(Os::Linux).build()?,
    ));
    document(
        &ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests([descriptor])
            .build()?,
    )
}

/// Returns the files, and their folders.
fn layer(files: &BTreeMap<&str, File<'_>>) -> anyhow::Result<Vec<u8>> {
    let files: BTreeMap<_, _> = files.iter().map(|(path, file)| (path.trim_start_matches('/'), *file)).collect();
    let folders = files
        .keys()
        .flat_map(|path| Path::new(path).ancestors().skip(1))
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect();
    tar(&files, &folders)
}

fn tar(files: &BTreeMap<&str, File<'_>>, folders: &BTreeSet<&Path>) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for folder in folders {
        archive.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), folder, std::io::empty())?;
    }
    for (path, file) in files {
        let size = u64::try_from(file.bytes.len())?;
        archive.append_data(&mut header(tar::EntryType::Regular, file.mode, size), path, file.bytes)?;
    }
    Ok(archive.into_inner()?)
}

/// Returns the header of an entry without host and time of its creation.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut compressed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    compressed.write_all(bytes)?;
    Ok(compressed.finish()?)
}

/// Serializes a value as JSON with its maps in order. The types of the specification have hashed maps; JSON's own value
/// has sorted ones.
fn document(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::to_value(value)?)?)
}

fn descriptor(kind: MediaType, blob: &[u8]) -> anyhow::Result<Descriptor> {
    Ok(Descriptor::new(kind, u64::try_from(blob.len())?, Digest::from_str(&digest(blob))?))
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(blob)))
}

fn blob_path(blob: &[u8]) -> String {
    format!("blobs/{}", digest(blob).replace(':', "/"))
}

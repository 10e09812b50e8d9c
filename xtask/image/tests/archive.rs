//! Tests that an image always has the same bytes, is a valid OCI layout, and has no unneeded content.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use image::{Archive, Image, LOCAL, Program, Root, pack};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, OciLayout};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tar::EntryType;

use crate::example;

/// An entry of a tar archive.
struct Entry {
    header: tar::Header,
    bytes: Vec<u8>,
}

fn entries(archive: &[u8]) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let header = entry.header().clone();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert!(found.insert(path.clone(), Entry { header, bytes }).is_none(), "{path} occurs twice");
    }
    found
}

/// An archive as an importer reads it: from the index on, with verified digests.
struct Layout {
    index: ImageIndex,
    manifest: ImageManifest,
    configuration: ImageConfiguration,
    /// The only layer, not compressed.
    layer: Vec<u8>,
}

fn read(archive: &Archive) -> Layout {
    let mut files = entries(&archive.bytes);
    let layout = OciLayout::from_reader(files.remove("oci-layout").unwrap().bytes.as_slice()).unwrap();
    assert_eq!(layout.image_layout_version(), "1.0.0");
    let index = ImageIndex::from_reader(files.remove("index.json").unwrap().bytes.as_slice()).unwrap();
    let mut blob = |descriptor: &Descriptor| {
        let bytes = files.remove(&format!("blobs/sha256/{}", descriptor.as_digest_sha256().unwrap())).unwrap().bytes;
        assert_eq!(descriptor.as_digest_sha256().unwrap(), hex::encode(Sha256::digest(&bytes)));
        assert_eq!(descriptor.size(), u64::try_from(bytes.len()).unwrap());
        bytes
    };
    let [described] = index.manifests().as_slice() else { panic!("not one manifest: {index:?}") };
    assert_eq!(described.digest().to_string(), archive.digest);
    let manifest = ImageManifest::from_reader(blob(described).as_slice()).unwrap();
    let configuration = ImageConfiguration::from_reader(blob(manifest.config()).as_slice()).unwrap();
    let [compressed] = manifest.layers().as_slice() else { panic!("not one layer: {manifest:?}") };
    let mut layer = Vec::new();
    flate2::read::GzDecoder::new(blob(compressed).as_slice()).read_to_end(&mut layer).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "the archive has a blob without a descriptor");
    Layout { index, manifest, configuration, layer }
}

fn packed(image: &Image) -> Layout {
    read(&pack(image).unwrap())
}

#[test]
fn the_same_image_has_the_same_bytes() {
    for program in Program::ALL {
        assert!(pack(&example(program)).unwrap() == pack(&example(program)).unwrap(), "{program}");
    }
}

#[test]
fn an_image_with_a_changed_byte_or_label_has_another_digest() {
    let image = example(Program::Server);
    let (mut changed, mut relabelled, mut renamed) = (image.clone(), image.clone(), image.clone());
    changed.root.files.values_mut().next().unwrap()[0] ^= 1;
    relabelled.labels.insert("org.opencontainers.image.revision".to_owned(), "c3d4".to_owned());
    let digest = |image: &Image| pack(image).unwrap().digest;
    assert_eq!(BTreeSet::from([digest(&image), digest(&changed), digest(&relabelled)]).len(), 3);
    // The name of the image is not part of it.
    renamed.reference = image::reference("elsewhere.example", Program::Server, "1.2.3").unwrap();
    assert_eq!(digest(&renamed), digest(&image));
}

#[test]
fn every_descriptor_has_the_digest_and_size_of_its_blob_and_every_blob_a_descriptor() {
    let image = packed(&example(Program::Operator));
    assert_eq!(image.manifest.schema_version(), 2);
    let layer = format!("sha256:{}", hex::encode(Sha256::digest(&image.layer)));
    assert_eq!(*image.configuration.rootfs().diff_ids(), [layer]);
}

#[test]
fn an_archive_contains_the_images_name_for_importers() {
    let image = packed(&example(Program::Operator));
    let names = image.index.manifests()[0].annotations().clone().unwrap();
    assert_eq!(names["io.containerd.image.name"], "registry.example/team/mcp-entra-operator:1.2.3");
    assert_eq!(names["org.opencontainers.image.ref.name"], "1.2.3");
}

#[test]
fn the_name_of_an_unpushed_image_belongs_to_no_registry() {
    // A name without a registry would belong to Docker Hub.
    assert_eq!(image::reference(LOCAL, Program::Server, "1").unwrap().whole(), "localhost/mcp-entra-server:1");
    assert_eq!(image::reference("team", Program::Server, "1").unwrap().registry(), "docker.io");
}

#[test]
fn a_name_that_registries_refuse_is_refused() {
    let refusal = image::reference("registry.example/Team", Program::Operator, "1").unwrap_err().to_string();
    assert!(refusal.contains("change --registry or --tag"), "{refusal}");
}

#[test]
fn a_root_has_only_the_programs_and_the_certificates() {
    let layer = entries(&packed(&example(Program::Server)).layer);
    let modes = layer.iter().map(|(path, entry)| (path.as_str(), entry.header.mode().unwrap()));
    let expected = [
        ("etc", 0o755),
        ("etc/ssl", 0o755),
        ("etc/ssl/certs", 0o755),
        ("etc/ssl/certs/ca-certificates.crt", 0o644),
        ("mcp-entra-server", 0o755),
        ("mcp-entra-shim", 0o755),
    ];
    assert_eq!(modes.map(|(path, mode)| (path.trim_end_matches('/'), mode)).collect::<Vec<_>>(), expected);
    for (path, Entry { header, .. }) in &layer {
        assert!(matches!(header.entry_type(), EntryType::Regular | EntryType::Directory), "{path}");
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0), "{path}");
    }
}

#[test]
fn the_shim_is_only_in_the_image_of_the_server() {
    let layer = entries(&packed(&example(Program::Operator)).layer);
    assert!(layer.contains_key("mcp-entra-operator") && !layer.contains_key("mcp-entra-shim"));
}

#[test]
fn an_image_may_have_one_program_and_no_other_file() {
    let mut image = example(Program::Server);
    let (beside, files) = (BTreeMap::new(), BTreeMap::new());
    image.root = Root { path: "/pause".to_owned(), program: image.root.program, beside, files };
    assert_eq!(entries(&packed(&image).layer).into_keys().collect::<Vec<_>>(), ["pause"]);
}

#[test]
fn the_certificates_are_mozillas_and_readable() {
    let layer = entries(&packed(&example(Program::Server)).layer);
    let bundle = &layer["etc/ssl/certs/ca-certificates.crt"].bytes;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(bundle).collect::<Result<_, _>>().unwrap();
    assert_eq!(certificates, webpki_root_certs::TLS_SERVER_ROOT_CERTS);
}

#[test]
fn a_container_runs_the_program_as_a_numeric_user_who_is_not_root() {
    let image = packed(&example(Program::Operator));
    let run = image.configuration.config().clone().unwrap();
    assert_eq!(run.entrypoint().clone().unwrap(), ["/mcp-entra-operator"]);
    let server = packed(&example(Program::Server)).configuration.config().clone().unwrap();
    assert_eq!(server.entrypoint().clone().unwrap(), ["/mcp-entra-server"]);
    // The user of the image only gives arguments.
    assert_eq!((run.cmd(), run.env()), (&None, &None));
    let (user, group) = run.user().as_ref().unwrap().split_once(':').unwrap();
    for number in [user, group] {
        assert_ne!(number.parse::<u32>().unwrap(), 0);
    }
}

#[test]
fn an_images_labels_name_its_content_commit_and_time() {
    let image = packed(&example(Program::Operator));
    let labels = image.configuration.labels_of_config().unwrap();
    let label = |key: &str| labels[&format!("org.opencontainers.image.{key}")].as_str();
    assert_eq!(label("title"), "mcp-entra-operator");
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), "Apache-2.0");
    assert_eq!(label("revision"), "a1b2");
    assert_eq!(label("created"), "2026-01-02T03:04:05Z");
    assert!(!label("description").is_empty());
    assert_eq!(image.configuration.created().clone().unwrap(), "2026-01-02T03:04:05Z");
}

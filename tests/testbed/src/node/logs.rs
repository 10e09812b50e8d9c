//! Logs of the containers: their files, and the only path of a kubelet's API that the node serves, for `kubectl logs`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::HOST_ADDRESS;
use crate::certificates::CertificateAuthority;
use crate::forward::Body;
use crate::serve::{Serving, answer, serve};

/// Logs of all pods that the node has run. They are kept after the deletion of their pods, and removed with the
/// supervisor's folder.
#[derive(Debug, Clone)]
pub(super) struct Logs(PathBuf);

impl Logs {
    /// Creates the logs below this folder.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Path of the log of one run of a container.
    pub(super) fn file(&self, pod: &Pod, container: &str, restarts: i32) -> PathBuf {
        let (namespace, uid) = (pod.namespace().unwrap_or_default(), pod.uid().unwrap_or_default());
        let pod = pod.name_any();
        self.0.join(format!("{namespace}_{pod}_{uid}")).join(container).join(format!("{restarts}.log"))
    }

    /// Returns the output of all pods with this name, by container and run.
    pub(super) fn of_pod(&self, namespace: &str, pod: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        let mut runs = Vec::new();
        for folder in self.pods(namespace, pod) {
            for container in sorted(&folder)? {
                runs.extend(sorted(&container)?);
            }
        }
        anyhow::ensure!(!runs.is_empty(), "pod {namespace}/{pod} has no log on this node");
        for run in runs {
            text.push_str(&String::from_utf8_lossy(&std::fs::read(run)?));
        }
        Ok(text)
    }

    /// Returns the output of a container's last run, or of the run before it.
    fn of_container(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> anyhow::Result<Vec<u8>> {
        let modified = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
        let pods = self.pods(namespace, pod);
        let newest = pods.into_iter().max_by_key(modified).context("the pod has no log")?;
        let runs = sorted(&newest.join(container)).context("the container has no log")?;
        let run = runs.iter().rev().nth(usize::from(previous)).context("the container has no such run")?;
        Ok(std::fs::read(run)?)
    }

    fn pods(&self, namespace: &str, pod: &str) -> Vec<PathBuf> {
        let prefix = format!("{namespace}_{pod}_");
        let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
        sorted(&self.0).unwrap_or_default().into_iter().filter(ours).collect()
    }
}

/// Returns the entries of a folder, `9.log` before `10.log`.
fn sorted(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    Ok(paths)
}

/// Serves the logs to the API server, which requests them at the node's address.
pub(super) async fn serve_logs(logs: Logs) -> anyhow::Result<Serving> {
    let names = [HOST_ADDRESS.to_string()];
    let certificate = CertificateAuthority::new("testbed node")?.issue(&names.each_ref().map(String::as_str))?;
    let chain = vec![CertificateDer::from_pem_slice(certificate.certificate_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.as_bytes())?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let tls = TlsAcceptor::from(Arc::new(config));
    serve(Some(tls), move |request, _| {
        let response = response(&logs, request.uri());
        async move { response }
    })
    .await
}

fn response(logs: &Logs, uri: &http::Uri) -> Response<Body> {
    let Some((namespace, pod, container)) = container(uri.path()) else {
        return answer(StatusCode::NOT_FOUND, "the testbed's node only serves /containerLogs/NAMESPACE/POD/CONTAINER");
    };
    let options: Vec<_> = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
    let option = |name: &str| options.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref());
    let previous = option("previous") == Some("true");
    match logs.of_container(namespace, pod, container, previous) {
        Ok(log) => {
            let lines = option("tailLines").and_then(|lines| lines.parse().ok());
            let log = lines.map_or(log.as_slice(), |lines| tail(&log, lines));
            Response::new(Either::Right(Full::new(Bytes::copy_from_slice(log))))
        }
        Err(error) => answer(StatusCode::NOT_FOUND, format!("{error:#}")),
    }
}

/// Parses namespace, pod and container of a kubelet's path for logs. It accepts only names, so that no path leaves the
/// folder.
fn container(path: &str) -> Option<(&str, &str, &str)> {
    let names: Vec<_> = path.strip_prefix("/containerLogs/")?.split('/').collect();
    match names.as_slice() {
        [namespace, pod, container] if !names.iter().any(|name| name.is_empty() || name.starts_with('.')) => {
            Some((namespace, pod, container))
        }
        _ => None,
    }
}

/// Returns the last lines of a log.
fn tail(log: &[u8], lines: usize) -> &[u8] {
    let body = log.strip_suffix(b"\n").unwrap_or(log);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = match lines.checked_sub(1) {
        None => log.len(),
        Some(skipped) => breaks.map(|(position, _)| position + 1).nth(skipped).unwrap_or_default(),
    };
    log.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_path_names_a_container_and_cannot_leave_the_folder() {
        assert_eq!(container("/containerLogs/n/p/c"), Some(("n", "p", "c")));
        for path in
            ["/containerLogs/n/p", "/containerLogs/n/p/c/d", "/containerLogs/n/p/..", "/containerLogs/n//c", "/x"]
        {
            assert_eq!(container(path), None, "{path}");
        }
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let log = b"one\ntwo\nthree\n";
        let tail = |lines| String::from_utf8(tail(log, lines).to_vec()).unwrap();
        assert_eq!(
            ["", "three\n", "two\nthree\n", "one\ntwo\nthree\n"],
            [0, 1, 2, 9].map(tail).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn the_tenth_run_of_a_container_is_later_than_the_ninth() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned());
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("n".into());
        pod.metadata.name = Some("p".into());
        pod.metadata.uid = Some("u".into());
        for restarts in [9, 10] {
            let file = logs.file(&pod, "c", restarts);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, format!("run {restarts}\n")).unwrap();
        }
        let read = |previous| String::from_utf8(logs.of_container("n", "p", "c", previous).unwrap()).unwrap();
        assert_eq!((read(false), read(true)), ("run 10\n".to_owned(), "run 9\n".to_owned()));
        assert_eq!(logs.of_pod("n", "p").unwrap(), "run 9\nrun 10\n");
        assert!(logs.of_pod("n", "other").is_err());
    }
}

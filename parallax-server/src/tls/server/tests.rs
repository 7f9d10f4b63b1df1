use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::super::certificate::tests::{files_in, fixture, write};
use super::*;
use crate::testing::logged;

fn showing_first(directory: &TempDir) -> TlsServer {
    let files = files_in(directory);
    write(&files, &fixture("server.pem"), &fixture("server.key"));
    TlsServer::open(files).unwrap()
}

#[test]
fn renewed_certificate_is_taken_once_both_files_are_there() {
    let directory = TempDir::new().unwrap();
    let tls = showing_first(&directory);
    let first = tls.certificate().fingerprint;
    assert!(tls.renewed().is_none());
    // An ACME client puts one file in its place, and then the other.
    fs::write(&tls.files.certificate, fixture("renewed.pem")).unwrap();
    assert!(tls.renewed().is_none());
    fs::write(&tls.files.key, fixture("renewed.key")).unwrap();
    assert!(tls.renewed().is_none());
    let renewed = tls.renewed().unwrap();
    assert_eq!(tls.certificate().fingerprint, first);
    tls.show(Arc::clone(&renewed));
    assert_eq!(tls.certificate().fingerprint, renewed.fingerprint);
    assert_ne!(renewed.fingerprint, first);
    assert!(tls.renewed().is_none());
}

#[test]
fn broken_renewal_is_told_once_and_leaves_what_there_is() {
    let directory = TempDir::new().unwrap();
    let tls = showing_first(&directory);
    let first = tls.certificate().fingerprint;
    let told = logged(|| {
        for break_it in [
            (&|| fs::write(&tls.files.key, fixture("renewed.key")).unwrap()) as &dyn Fn(),
            &|| fs::write(&tls.files.certificate, fixture("expired.pem")).unwrap(),
            &|| fs::remove_file(&tls.files.key).unwrap(),
        ] {
            break_it();
            for _ in 0..5 {
                assert!(tls.renewed().is_none());
            }
        }
    });
    assert_eq!(tls.certificate().fingerprint, first);
    let told = told.replace(&format!("{}/", directory.path().display()), "");
    insta::assert_snapshot!(told, @"
    WARN parallax_server::tls::server: Renewed certificate cannot be used; the old one stays error=key.pem: the key is not that of the certificate valid_until=2120-01-01T00:00:00Z
    WARN parallax_server::tls::server: Renewed certificate cannot be used; the old one stays error=cert.pem: a certificate in it expired at 2021-01-01T00:00:00Z valid_until=2120-01-01T00:00:00Z
    WARN parallax_server::tls::server: Renewed certificate cannot be used; the old one stays error=cert.pem: a certificate in it expired at 2021-01-01T00:00:00Z valid_until=2120-01-01T00:00:00Z
    ");
    // What comes then is taken.
    write(&tls.files, &fixture("renewed.pem"), &fixture("renewed.key"));
    assert!(tls.renewed().is_none());
    assert!(tls.renewed().is_some());
}

#[test]
fn link_that_points_elsewhere_is_followed() {
    let directory = TempDir::new().unwrap();
    let tls = showing_first(&directory);
    write(&tls.files, &fixture("server.pem"), &fixture("renewed.key"));
    tls.renewed();
    assert!(tls.renewed().is_none());
    // A link, as Kubernetes has them, that points elsewhere from now on.
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, fixture("server.key")).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(&tls.files.key).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &tls.files.key).unwrap();
    tls.renewed();
    assert!(tls.renewed().is_some());
}

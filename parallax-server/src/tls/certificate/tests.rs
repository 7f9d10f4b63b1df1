use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::testing::logged;

/// Returns a file of `tests/certificates`, whose script says what is in it.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    fs::read(directory.join(name)).unwrap()
}

/// Writes a certificate and its key, the latter for nobody else to read.
pub(crate) fn write(files: &Files, certificate: &[u8], key: &[u8]) {
    fs::write(&files.certificate, certificate).unwrap();
    fs::write(&files.key, key).unwrap();
    fs::set_permissions(&files.key, Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn files_in(directory: &TempDir) -> Files {
    Files {
        certificate: directory.path().join("cert.pem"),
        key: directory.path().join("key.pem"),
    }
}

#[test]
fn certificate_is_known_by_its_own_hash_and_its_end() {
    let directory = TempDir::new().unwrap();
    let files = files_in(&directory);
    write(&files, &fixture("server.pem"), &fixture("server.key"));
    let read = Certificate::read(&files).unwrap();
    assert_eq!(read.valid_until.to_string(), "2120-01-01T00:00:00Z");
    assert_eq!(read.shown.cert.len(), 2);
    assert_eq!(read.fingerprint, fingerprint(&read.shown.cert[0]));
    write(&files, &fixture("renewed.pem"), &fixture("renewed.key"));
    let renewed = Certificate::read(&files).unwrap();
    assert_ne!(renewed.fingerprint, read.fingerprint);
}

#[test]
fn what_cannot_be_shown_is_told_with_its_file_and_what_to_do() {
    let directory = TempDir::new().unwrap();
    let files = files_in(&directory);
    let (server, key) = (fixture("server.pem"), fixture("server.key"));
    let end = "-----END CERTIFICATE-----\n";
    let text = String::from_utf8(server.clone()).unwrap();
    let (own, authority) = text.split_at(text.find(end).unwrap() + end.len());
    let backwards = [authority, own].concat().into_bytes();
    let cut = &text.as_bytes()[..200];
    let not_base64 = text.replacen("\nMII", "\n!!!", 1).into_bytes();
    let not_der = text.replacen("\nMII", "\nAII", 1).into_bytes();
    let with_expired = [own.as_bytes(), &fixture("expired.pem")].concat();
    let mut lines = Vec::new();
    for (certificate, key) in [
        (&b""[..], &key[..]),
        (b"\xff\xfe", &key),
        (&key, &server),
        (cut, &key),
        (&not_base64, &key),
        (&not_der, &key),
        (&fixture("expired.pem"), &key),
        (&with_expired, &key),
        (&fixture("future.pem"), &key),
        (&backwards, &key),
        (&server, &fixture("renewed.key")),
        (&server, b""),
        (&server, &server),
        (&server, &fixture("encrypted.key")),
        (&server, &key[..100]),
    ] {
        write(&files, certificate, key);
        let error = Certificate::read(&files).unwrap_err();
        lines.push(format!("{error}\n  {}", error.help()));
    }
    for path in [&files.key, &files.certificate] {
        write(&files, &server, &key);
        fs::remove_file(path).unwrap();
        lines.push(Certificate::read(&files).unwrap_err().to_string());
        fs::create_dir(path).unwrap();
        lines.push(Certificate::read(&files).unwrap_err().to_string());
        fs::remove_dir(path).unwrap();
    }
    let lines = lines.join("\n");
    let lines = lines.replace(&format!("{}/", directory.path().display()), "");
    insta::assert_snapshot!(lines, @"
    cert.pem: there is no certificate in it
      put the server's certificate there, in PEM: -----BEGIN CERTIFICATE-----
    cert.pem: there is no certificate in it
      put the server's certificate there, in PEM: -----BEGIN CERTIFICATE-----
    cert.pem: there is a key in it, and no certificate
      exchange certificate and key, if they have been mixed up
    cert.pem: this is not PEM: a section has no end
      see what is in it with openssl storeutl -noout cert.pem
    cert.pem: this is not PEM: a section is not base64
      see what is in it with openssl storeutl -noout cert.pem
    cert.pem: a certificate in it cannot be read: BadEncoding
      have a new one made, with a key for ECDSA P-256 or for RSA with 2,048 bits
    cert.pem: a certificate in it expired at 2021-01-01T00:00:00Z
      have it renewed, as by your ACME client
    cert.pem: a certificate in it expired at 2021-01-01T00:00:00Z
      have it renewed, as by your ACME client
    cert.pem: a certificate in it is not valid before 2119-01-01T00:00:00Z
      see whether this machine's clock is right
    cert.pem: the certificate of the key is not the first in it
      put the server's own certificate first, and those of who signed it after it
    key.pem: the key is not that of the certificate
      name the key that the certificate was requested with
    key.pem: there is no key in it
      put the key of the certificate there, in PEM: -----BEGIN PRIVATE KEY-----
    key.pem: there is a certificate in it, and no key
      exchange certificate and key, if they have been mixed up
    key.pem: the key is encrypted
      take the passphrase away: openssl pkey -in key.pem -out PLAIN, with PLAIN for nobody else to read
    key.pem: this is not PEM: a section has no end
      see what is in it with openssl storeutl -noout key.pem
    key.pem: there is no such file
    key.pem: Is a directory (os error 21)
    cert.pem: there is no such file
    cert.pem: Is a directory (os error 21)
    ");
}

#[test]
fn nothing_of_a_key_is_in_what_is_said_of_it() {
    let directory = TempDir::new().unwrap();
    let files = files_in(&directory);
    let key = String::from_utf8(fixture("server.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for broken in [
        format!("-----BEGIN PRIVATE KEY-----{secret}\n{secret}"),
        format!("-----BEGIN PRIVATE KEY-----\n{secret}\n"),
        format!("-----BEGIN PRIVATE KEY-----\n{secret}!\n-----END PRIVATE KEY-----\n"),
        format!("-----BEGIN {secret}\n"),
        secret.to_owned(),
    ] {
        write(&files, &fixture("server.pem"), broken.as_bytes());
        let error = Certificate::read(&files).unwrap_err();
        for said in [error.to_string(), error.help(), format!("{error:?}")] {
            assert!(!said.contains(&secret[..16]), "{said}");
        }
    }
}

#[test]
fn key_that_everybody_can_use_is_warned_of() {
    let directory = TempDir::new().unwrap();
    let files = files_in(&directory);
    write(&files, &fixture("server.pem"), &fixture("server.key"));
    for (mode, warns) in [(0o644, true), (0o602, true), (0o640, false), (0o600, false)] {
        fs::set_permissions(&files.key, Permissions::from_mode(mode)).unwrap();
        let told = logged(|| {
            Certificate::read(&files).unwrap();
        });
        assert_eq!(told.contains("Others can use the key"), warns, "{told}");
    }
}

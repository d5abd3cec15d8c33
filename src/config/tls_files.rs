//! The files of `delivery.ca_file`, `delivery.client_certificate_file` and `delivery.client_key_file`.

use std::io::Read as _;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::{BadConfig, DeliverySettings};

/// The largest file that is read, in bytes. The certificates of all public authorities together are about 250 kB.
const FILE_MAX: u64 = 4 << 20;

/// The certificates and the key that TLS uses besides the system's certificates.
#[derive(Debug)]
pub struct TlsFiles {
    /// The trusted certificates of `delivery.ca_file`.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The client certificate with its key. Its `Debug` form does not show the key.
    pub identity: Option<Arc<CertifiedKey>>,
}

impl DeliverySettings {
    /// Reads the files.
    ///
    /// # Errors
    /// [`BadConfig`] has one line for each file that can't be used.
    pub fn tls_files(&self) -> Result<TlsFiles, BadConfig> {
        let authorities = match self.ca_file.as_str() {
            "" => Ok(Vec::new()),
            path => trusted("delivery.ca_file", path),
        };
        match (authorities, self.identity()) {
            (Ok(authorities), Ok(identity)) => Ok(TlsFiles { authorities, identity }),
            (Err(one), Err(other)) => Err(BadConfig(format!("{one}\n{other}"))),
            (Err(problem), Ok(_)) | (Ok(_), Err(problem)) => Err(BadConfig(problem)),
        }
    }

    /// The problem of a client certificate without its key, or of a key without its certificate.
    #[must_use]
    pub fn lone_tls_file(&self) -> Option<String> {
        let (certificate, key) = ("delivery.client_certificate_file", "delivery.client_key_file");
        let (set, missing) = match (self.client_certificate_file.is_empty(), self.client_key_file.is_empty()) {
            (false, true) => (certificate, key),
            (true, false) => (key, certificate),
            _ => return None,
        };
        Some(format!("{set} is set, but {missing} is empty; a client certificate needs both"))
    }

    fn identity(&self) -> Result<Option<Arc<CertifiedKey>>, String> {
        let (certificate, key) = (&*self.client_certificate_file, &*self.client_key_file);
        if let Some(problem) = self.lone_tls_file() {
            return Err(problem);
        } else if certificate.is_empty() {
            return Ok(None);
        }
        let chain = certificates("delivery.client_certificate_file", certificate)?;
        let key = private_key("delivery.client_key_file", key)?;
        // The TLS library takes a copy of the key and doesn't clear it.
        match CertifiedKey::from_der(chain, key.clone_key(), &aws_lc_rs::default_provider()) {
            Ok(identity) => Ok(Some(Arc::new(identity))),
            Err(rustls::Error::InconsistentKeys(_)) => Err(format!(
                "delivery.client_key_file: the key doesn't belong to the first certificate of {certificate:?} \
                 (delivery.client_certificate_file)"
            )),
            Err(error) => Err(format!("delivery.client_certificate_file, delivery.client_key_file: {error}")),
        }
    }
}

pub(super) fn trusted(setting: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = certificates(setting, path)?;
    for (index, certificate) in found.iter().enumerate() {
        RootCertStore::empty().add(certificate.clone()).map_err(|error| {
            let number = index.saturating_add(1);
            format!("{setting} = {path:?}: certificate number {number} can't be used: {error}")
        })?;
    }
    Ok(found)
}

pub(super) fn certificates(setting: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = contents(setting, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| format!("{setting} = {path:?}: {}", explanation(&error)))?;
    let begun = begun(&text);
    if begun == 0 {
        Err(format!(
            "{setting} = {path:?}: the file has no certificate; it must have one or more in PEM form, each of which \
             begins with the line -----BEGIN CERTIFICATE-----"
        ))
    } else if found.len() < begun {
        Err(format!(
            "{setting} = {path:?}: only {} of its {begun} certificates can be read; each must begin with the line \
             -----BEGIN CERTIFICATE-----, without anything before it",
            found.len(),
        ))
    } else {
        Ok(found)
    }
}

/// The number of lines that seem to begin a certificate, in any spelling.
fn begun(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n')
        .filter(|line| contains(line, b"-----BEGIN ") && contains(line, b"CERTIFICATE-----"))
        .count()
}

pub(super) fn private_key(setting: &str, path: &str) -> Result<Zeroizing<PrivateKeyDer<'static>>, String> {
    let text = contents(setting, path)?;
    if contains(&text, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(&text, b"Proc-Type: 4,ENCRYPTED") {
        return Err(format!(
            "{setting} = {path:?}: the key is encrypted; it must be without a passphrase, as `openssl pkey` writes it"
        ));
    }
    PrivateKeyDer::from_pem_slice(&text)
        .map(Zeroizing::new)
        .map_err(|error| format!("{setting} = {path:?}: {}", explanation(&error)))
}

/// Explains why a file can't be read as PEM. The reader's own text is left out, because it repeats parts of the file, and
/// any of the files may hold a private key by mistake.
fn explanation(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section of the file has no line that ends it, -----END …-----",
        pem::Error::IllegalSectionStart { .. } => {
            "a line that begins a section has another form than -----BEGIN …-----, alone on its line"
        }
        pem::Error::Base64Decode(_) => "a section of the file isn't valid base64",
        pem::Error::NoItemsFound => "the file has no private key in PEM form (PKCS #8, PKCS #1 or SEC 1)",
        _ => "the file isn't valid PEM",
    }
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

pub(super) fn contents(setting: &str, path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let cannot = |why: &dyn std::fmt::Display| format!("{setting} = {path:?}: the file can't be read: {why}");
    // A pipe or a device could make the start wait without end.
    let length = match std::fs::metadata(path) {
        Ok(found) if found.is_file() => found.len(),
        Ok(_) => return Err(cannot(&"it isn't a regular file")),
        Err(error) => return Err(cannot(&error)),
    };
    if length > FILE_MAX {
        return Err(cannot(&format_args!("it has {length} bytes, and at most {FILE_MAX} are allowed")));
    }
    // The memory is reserved at once, so that no part of a key is left behind where the text grew.
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_MAX as usize));
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
    read.map(|_| text).map_err(|error| cannot(&error))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use crate::config::Config;

    struct Files(tempfile::TempDir);

    impl Files {
        fn with(&self, name: &str, text: &str) -> String {
            let path = self.0.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        }
    }

    fn problems(ca: &str, certificate: &str, key: &str) -> String {
        let mut delivery = Config::built_in().delivery;
        delivery.ca_file = ca.to_owned();
        delivery.client_certificate_file = certificate.to_owned();
        delivery.client_key_file = key.to_owned();
        delivery.tls_files().err().map(|problem| problem.to_string()).unwrap_or_default()
    }

    #[test]
    fn each_file_that_cannot_be_used_is_refused_with_its_reason() {
        let files = Files(tempfile::tempdir().unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a.example".into()]).unwrap().self_signed(&key).unwrap().pem();
        let good = files.with("good.pem", &certificate);
        let good_key = files.with("good.key", &key.serialize_pem());
        let other_key = files.with("other.key", &KeyPair::generate().unwrap().serialize_pem());
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let encrypted = files.with("encrypted.key", encrypted);
        let empty = files.with("empty", "");
        let broken = files.with("broken", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n");
        let no_certificate = files.with("no", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let spoiled = files.with("spoiled", &format!("{certificate}\u{feff}{certificate}"));
        // Texts in which the PEM reader takes the key for a part of its syntax.
        let lost_lines = files.with("lost", &key.serialize_pem().replace('\n', " "));
        let begun_only = files.with("begun", "-----BEGIN PRIVATE KEY-----hunter2");
        let not_ended = files.with("unended", "-----BEGIN PRIVATE KEY-----\nhunter2!\n");
        let fifo = files.0.path().join("fifo").to_str().unwrap().to_owned();
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let folder = files.0.path().to_str().unwrap().to_owned();
        assert_eq!(problems(&good, &good, &good_key), "");
        assert_eq!(problems("", &good, &good_key), "");
        let no_end = "a section of the file has no line that ends it";
        let no_start = "a line that begins a section has another form";
        for (found, words) in [
            (problems("/none.pem", "", ""), "delivery.ca_file = \"/none.pem\": the file can't be read: No such file"),
            (problems(&folder, "", ""), "the file can't be read: it isn't a regular file"),
            (problems("/dev/zero", "", ""), "the file can't be read: it isn't a regular file"),
            (problems(&fifo, "", ""), "the file can't be read: it isn't a regular file"),
            (problems(&empty, "", ""), "the file has no certificate"),
            (problems(&good_key, "", ""), "the file has no certificate"),
            (problems(&broken, "", ""), "a section of the file isn't valid base64"),
            (problems(&no_certificate, "", ""), "certificate number 1 can't be used"),
            (problems(&spoiled, "", ""), "only 1 of its 2 certificates can be read"),
            (problems("", &good, ""), "client_key_file is empty; a client certificate needs both"),
            (problems("", "", &good_key), "client_certificate_file is empty; a client certificate needs both"),
            (problems("", &good, &good), "the file has no private key in PEM form"),
            (problems("", &good, &not_ended), no_end),
            (problems(&not_ended, "", ""), no_end),
            (problems("", &lost_lines, &good_key), ""),
            (problems(&lost_lines, "", ""), ""),
            (problems("", &good, &begun_only), no_start),
            (problems(&begun_only, "", ""), no_start),
            (problems("", &good, &encrypted), "the key is encrypted; it must be without a passphrase"),
            (problems("", &good, &other_key), "the key doesn't belong to the first certificate"),
            (problems("", &no_certificate, &good_key), "delivery.client_certificate_file"),
        ] {
            assert!(!found.is_empty() && found.contains(words) && !found.contains('\n'), "{words}: {found}");
            // The sentence consists of fixed words and of the path, and repeats nothing of the file.
            assert!(found.len() < 300 && !found.contains("hunter2") && !found.contains("104, 117"), "{found}");
        }
        assert_eq!(problems("/none.pem", &good, "").lines().count(), 2);
        // Everybody who uses a command learns of a forgotten key, even if they can't read the files.
        let mut config = Config::built_in();
        config.delivery.client_certificate_file = "/none.pem".to_owned();
        assert!(config.check().unwrap_err().to_string().contains("a client certificate needs both"));
        config.delivery.client_key_file = "/none.key".to_owned();
        config.check().unwrap();
    }
}

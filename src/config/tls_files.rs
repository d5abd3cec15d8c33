//! The files of `delivery.ca_file`, `delivery.client_certificate_file` and `delivery.client_key_file`.

use std::io::Read as _;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
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

    fn identity(&self) -> Result<Option<Arc<CertifiedKey>>, String> {
        let (certificate, key) = (&*self.client_certificate_file, &*self.client_key_file);
        match (certificate.is_empty(), key.is_empty()) {
            (true, true) => return Ok(None),
            (false, true) => return Err(alone("delivery.client_certificate_file", "delivery.client_key_file")),
            (true, false) => return Err(alone("delivery.client_key_file", "delivery.client_certificate_file")),
            (false, false) => {}
        }
        let chain = certificates("delivery.client_certificate_file", certificate)?;
        let key = private_key("delivery.client_key_file", key)?;
        match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            Ok(identity) => Ok(Some(Arc::new(identity))),
            Err(rustls::Error::InconsistentKeys(_)) => Err(format!(
                "delivery.client_key_file: the key doesn't belong to the first certificate of {certificate:?} \
                 (delivery.client_certificate_file)"
            )),
            Err(error) => Err(format!("delivery.client_certificate_file, delivery.client_key_file: {error}")),
        }
    }
}

fn alone(set: &str, missing: &str) -> String {
    format!("{set} is set, but {missing} is empty; a client certificate needs both")
}

fn trusted(setting: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = certificates(setting, path)?;
    for (index, certificate) in found.iter().enumerate() {
        RootCertStore::empty().add(certificate.clone()).map_err(|error| {
            let number = index.saturating_add(1);
            format!("{setting} = {path:?}: certificate number {number} can't be used: {error}")
        })?;
    }
    Ok(found)
}

fn certificates(setting: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = contents(setting, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!(
            "{setting} = {path:?}: the file has no certificate; it must have one or more in PEM form, each of which \
             begins with -----BEGIN CERTIFICATE-----"
        )),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{setting} = {path:?}: the file isn't valid PEM: {error}")),
    }
}

fn private_key(setting: &str, path: &str) -> Result<PrivateKeyDer<'static>, String> {
    let text = contents(setting, path)?;
    if contains(&text, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(&text, b"Proc-Type: 4,ENCRYPTED") {
        return Err(format!(
            "{setting} = {path:?}: the key is encrypted; it must be without a passphrase, as `openssl pkey` writes it"
        ));
    }
    // The error of the PEM reader is left out, because it may repeat a line of the file.
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        format!("{setting} = {path:?}: the file has no private key in PEM form (PKCS #8, PKCS #1 or SEC 1)")
    })
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

fn contents(setting: &str, path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    // The memory is reserved at once, so that the text of a key isn't left behind where it grew.
    let mut text = Zeroizing::new(Vec::new());
    let read = || {
        let file = std::fs::File::open(path)?;
        text.reserve(file.metadata()?.len().min(FILE_MAX) as usize + 1);
        file.take(FILE_MAX + 1).read_to_end(&mut text)
    };
    match { read }() {
        Ok(bytes) if bytes as u64 > FILE_MAX => {
            Err(format!("{setting} = {path:?}: the file is too large; at most {FILE_MAX} bytes are read"))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{setting} = {path:?}: the file can't be read: {error}")),
    }
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
        let mut config = Config::built_in();
        config.delivery.ca_file = ca.to_owned();
        config.delivery.client_certificate_file = certificate.to_owned();
        config.delivery.client_key_file = key.to_owned();
        config.check().err().map(|problem| problem.to_string()).unwrap_or_default()
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
        let leaked = files.with("leaked", "-----BEGIN PRIVATE KEY-----\nhunter2!\n");
        let folder = files.0.path().to_str().unwrap().to_owned();
        assert_eq!(problems(&good, &good, &good_key), "");
        assert_eq!(problems("", &good, &good_key), "");
        for (found, words) in [
            (problems("/none.pem", "", ""), "delivery.ca_file = \"/none.pem\": the file can't be read: No such file"),
            (problems(&folder, "", ""), "the file can't be read: Is a directory"),
            (problems("/dev/zero", "", ""), "the file is too large"),
            (problems(&empty, "", ""), "the file has no certificate"),
            (problems(&good_key, "", ""), "the file has no certificate"),
            (problems(&broken, "", ""), "isn't valid PEM"),
            (problems(&no_certificate, "", ""), "certificate number 1 can't be used"),
            (problems("", &good, ""), "client_key_file is empty; a client certificate needs both"),
            (problems("", "", &good_key), "client_certificate_file is empty; a client certificate needs both"),
            (problems("", &good, &good), "the file has no private key in PEM form"),
            (problems("", &good, &leaked), "the file has no private key in PEM form"),
            (problems("", &good, &encrypted), "the key is encrypted; it must be without a passphrase"),
            (problems("", &good, &other_key), "the key doesn't belong to the first certificate"),
            (problems("", &no_certificate, &good_key), "delivery.client_certificate_file"),
        ] {
            assert!(found.contains(words) && !found.contains("hunter2") && !found.contains('\n'), "{words}: {found}");
        }
        assert_eq!(problems("/none.pem", &good, "").lines().count(), 2);
    }
}

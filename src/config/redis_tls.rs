//! The files of `redis.ca_file`, `redis.client_certificate_file` and `redis.client_key_file`.

use super::tls_files::{certificates, contents, private_key, trusted};
use super::{BadConfig, Redis};

impl Redis {
    /// Reads the files for TLS to Redis.
    ///
    /// # Errors
    /// [`BadConfig`] names the first file that can't be used, and why.
    pub fn tls_certificates(&self) -> Result<redis::TlsCertificates, BadConfig> {
        self.read_tls_files().map_err(BadConfig)
    }

    fn read_tls_files(&self) -> Result<redis::TlsCertificates, String> {
        let root_cert = match self.ca_file.as_str() {
            "" => None,
            path => {
                trusted("redis.ca_file", path)?;
                Some(contents("redis.ca_file", path)?.to_vec())
            }
        };
        let (certificate, key) = ("redis.client_certificate_file", "redis.client_key_file");
        let client_tls = match (self.client_certificate_file.as_str(), self.client_key_file.as_str()) {
            ("", "") => None,
            (_, "") => {
                return Err(format!("{certificate} is set, but {key} is empty; a client certificate needs both"));
            }
            ("", _) => {
                return Err(format!("{key} is set, but {certificate} is empty; a client certificate needs both"));
            }
            (certificate_path, key_path) => {
                certificates(certificate, certificate_path)?;
                private_key(key, key_path)?;
                let client_cert = contents(certificate, certificate_path)?.to_vec();
                let client_key = contents(key, key_path)?.to_vec();
                Some(redis::ClientTlsConfig { client_cert, client_key })
            }
        };
        Ok(redis::TlsCertificates { client_tls, root_cert })
    }

    /// Whether files for TLS are set.
    #[must_use]
    pub fn has_tls_files(&self) -> bool {
        [&self.ca_file, &self.client_certificate_file, &self.client_key_file].iter().any(|path| !path.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn problem(settings: &[(&str, &str)]) -> String {
        let config = Config::with(settings.iter().copied()).map(|config| config.redis.tls_certificates().map(drop));
        config.and_then(|read| read).err().map(|problem| problem.to_string()).unwrap_or_default()
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        assert_eq!(problem(&[]), "");
        assert!(problem(&[("redis.url", "rediss://r/"), ("redis.ca_file", "/none.pem")]).contains("redis.ca_file"));
        let lone = [("redis.url", "rediss://r/"), ("redis.client_key_file", "/none.pem")];
        assert!(problem(&lone).contains("client_certificate_file is empty"));
        let plain = [("redis.url", "redis://r/"), ("redis.ca_file", "/none.pem")];
        assert!(problem(&plain).contains("rediss://"), "{}", problem(&plain));
    }
}

//! `[traces]`

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BadConfig, masked, masked_url};
use crate::secret::Secret;

/// `[traces]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    pub endpoint: String,
    #[serde(serialize_with = "masked::secret")]
    pub headers: Secret,
    pub sample_ratio: f64,
    pub queue_max: usize,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Traces {
    /// The names and values of `traces.headers`.
    ///
    /// # Errors
    /// If the text has another form. The message does not repeat it.
    pub fn headers(&self) -> Result<Vec<(String, String)>, BadConfig> {
        let bad = || BadConfig("traces.headers: must look like name=value,name=value".to_owned());
        let entries = self.headers.expose().split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                let (name, value) = entry.split_once('=').ok_or_else(bad)?;
                let (name, value) = (name.trim(), value.trim());
                let is_header = name.parse::<hyper::header::HeaderName>().is_ok()
                    && value.parse::<hyper::header::HeaderValue>().is_ok();
                if is_header { Ok((name.to_owned(), value.to_owned())) } else { Err(bad()) }
            })
            .collect()
    }

    /// What is wrong with the settings, apart from their bounds.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        let is_endpoint = url::Url::parse(&self.endpoint).is_ok_and(|url| {
            let has_user = !url.username().is_empty() || url.password().is_some();
            matches!(url.scheme(), "http" | "https") && url.query().is_none() && !has_user
        });
        if !self.endpoint.is_empty() && !is_endpoint {
            bad.push(format!(
                "traces.endpoint = {:?}: must be the address of an OTLP receiver, such as http://collector:4318, or empty; \
                 a token belongs into traces.headers",
                masked_url(&self.endpoint)
            ));
        }
        bad.extend(self.headers().err().map(|problem| problem.0));
        bad
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn headers_are_pairs_and_an_endpoint_is_a_url() {
        let config = Config::with([("traces.headers", "authorization=Bearer a=b, x-team = web")]).unwrap();
        let expected = [("authorization", "Bearer a=b"), ("x-team", "web")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(config.traces.headers().unwrap(), expected);
        for (key, value) in [
            ("traces.headers", "a secret without its name"),
            ("traces.headers", "a b=c"),
            ("traces.endpoint", "collector:4318"),
            ("traces.endpoint", "http://user:secret without@collector:4318"),
            ("traces.endpoint", "http://:secret@collector:4318"),
            ("traces.endpoint", "http://collector:4318/?key=secret%20without"),
            ("traces.sample_ratio", "1.5"),
        ] {
            let problem = Config::with([(key, value)]).unwrap_err().to_string();
            assert!(problem.contains(key) && !problem.contains("secret without"), "{problem}");
        }
    }
}

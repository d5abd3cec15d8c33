//! The arguments that set headers of a webhook.

use crate::cli::{Failure, secret_input};
use crate::secret::{MASK, Secret};
use crate::webhook::custom_header::{CustomHeader, HeaderDraft};

/// Headers that each request has in addition.
#[derive(clap::Args, Default)]
pub(super) struct HeaderArguments {
    /// A header that each request has in addition, as "Name: value"; may be given up to 20 times. Other users of this
    /// machine can see arguments: consider --header-env for secrets.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A header whose value is in an environment variable, as "Name=VARIABLE".
    #[arg(long = "header-env", value_name = "NAME=VARIABLE")]
    from_variables: Vec<String>,
}

impl HeaderArguments {
    /// The headers that the arguments set.
    pub(super) fn read(&self) -> Result<Vec<HeaderDraft>, Failure> {
        let given = self.headers.iter().map(|text| {
            let (name, value) = text.split_once(':').ok_or_else(|| {
                Failure::Usage("--header: a colon is missing; write it as \"Name: value\"".to_owned())
            })?;
            Ok(HeaderDraft { name: name.trim().to_owned(), value: value.trim().into() })
        });
        let variables = self.from_variables.iter().map(|text| {
            let (name, variable) = text.split_once('=').ok_or_else(|| {
                Failure::Usage("--header-env: an equals sign is missing; write it as Name=VARIABLE".to_owned())
            })?;
            let value = secret_input::from_variable(variable)?;
            let value = value.ok_or_else(|| Failure::Usage(format!("--header-env: {variable} isn't set")))?;
            Ok(HeaderDraft { name: name.trim().to_owned(), value })
        });
        given.chain(variables).collect()
    }
}

/// The headers of a webhook that has `current` after `set` are set and `removed` are removed.
///
/// # Errors
/// A name in `removed` that the webhook doesn't have.
pub(super) fn changed(
    current: &[CustomHeader],
    set: &[HeaderDraft],
    removed: &[String],
) -> Result<Vec<HeaderDraft>, String> {
    let names = |name: &str, other: &str| name.eq_ignore_ascii_case(other);
    if let Some(missing) = removed.iter().find(|name| !current.iter().any(|header| names(&header.name, name))) {
        return Err(format!("--remove-header: the webhook has no header {missing}"));
    }
    let kept = current.iter().filter(|header| {
        let is_set = set.iter().any(|draft| names(&draft.name, &header.name));
        !is_set && !removed.iter().any(|name| names(name, &header.name))
    });
    let kept = kept.map(|header| HeaderDraft { name: header.name.clone(), value: Secret::from(MASK) });
    Ok(kept.chain(set.iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_headers_stay_and_a_missing_one_cannot_be_removed() {
        let current =
            ["Authorization", "X-Route"].map(|name| CustomHeader { name: name.to_owned(), value: "v".into() });
        let set = [HeaderDraft { name: "x-route".to_owned(), value: "blue".into() }];
        let after = changed(&current, &set, &[]).unwrap();
        let shown: Vec<_> = after.iter().map(|header| (header.name.as_str(), header.value.expose())).collect();
        assert_eq!(shown, [("Authorization", MASK), ("x-route", "blue")]);
        assert_eq!(changed(&current, &[], &["authorization".to_owned()]).unwrap().len(), 1);
        assert!(changed(&current, &[], &["X-Other".to_owned()]).unwrap_err().contains("X-Other"));
    }
}

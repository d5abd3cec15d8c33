//! Resolves the names of endpoints, and refuses a name with a forbidden address.

use std::net::IpAddr;
use std::sync::Arc;

use super::names::{Names, Unresolved};
use crate::address::{AddressPolicy, Blocked};
use crate::delivery::FailureCode;
use crate::metrics::{self, NameFailure};

/// Why a name has no address that may be dialled.
///
/// The text is for operators. Whoever chose the name sees only [`NoAddress::shown`], so that nobody finds out by trying
/// which names exist in this network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// The name has no address.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// One of the addresses is forbidden.
    #[error(transparent)]
    Forbidden(#[from] Blocked),
}

impl NoAddress {
    /// The reason for people who chose the name. It is the same for a forbidden address and for no address.
    #[must_use]
    pub fn shown(&self) -> &'static str {
        match self {
            Self::Forbidden(_) | Self::Unresolved(Unresolved::Unknown) => {
                "no address that may be used is known for this name"
            }
            Self::Unresolved(Unresolved::NoAnswer | Unresolved::DomainSilent) => "the name servers don't answer",
            Self::Unresolved(Unresolved::Failed(_)) => "the name can't be looked up for now",
        }
    }

    /// The failure code for people who chose the name.
    #[must_use]
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Unresolved(Unresolved::NoAnswer) => FailureCode::Egress,
            Self::Forbidden(_) | Self::Unresolved(_) => FailureCode::Dns,
        }
    }

    fn label(&self) -> NameFailure {
        match self {
            Self::Forbidden(_) => NameFailure::Forbidden,
            Self::Unresolved(Unresolved::Unknown) => NameFailure::Unknown,
            Self::Unresolved(Unresolved::NoAnswer | Unresolved::DomainSilent) => NameFailure::NoAnswer,
            Self::Unresolved(Unresolved::Failed(_)) => NameFailure::Failed,
        }
    }
}

/// Returns the addresses of `name`, all of them allowed. The exact reason of a failure is counted and logged here.
///
/// One forbidden address is enough to refuse the name. A name with public and private addresses may be an attempt at DNS
/// rebinding.
///
/// # Errors
/// [`NoAddress`] if the name has no address, or a forbidden one.
pub async fn resolve(names: &Names, policy: &AddressPolicy, name: &str) -> Result<Arc<[IpAddr]>, NoAddress> {
    let result = match names.resolve(name).await {
        Ok(addresses) => {
            let checked = addresses.iter().try_for_each(|address| policy.check(*address));
            checked.map(|()| addresses).map_err(NoAddress::from)
        }
        Err(why) => Err(why.into()),
    };
    if let Err(why) = &result {
        metrics::NAME_FAILURES.increment(why.label().as_str());
        // Anybody who may add a webhook can cause this line, so it is no warning: a flood of them would fill the log.
        tracing::debug!(host = name, reason = %why, "host has no address that may be dialled");
    }
    result
}

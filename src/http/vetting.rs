//! Checks the URL of a webhook before it is saved, which includes the addresses of its host.

use url::{Host, Url};

use super::client::{limits, policy};
use super::guard::{self, NoAddress};
use super::names::Names;
use crate::address::AddressPolicy;
use crate::config::DeliverySettings;
use crate::webhook::BadWebhook;

/// Checks URLs. The attempts check them again, because the addresses of a name can change at any time.
pub struct Vetting {
    /// `None` behind an egress proxy, which resolves the names. They may mean something else here, or nothing.
    names: Option<Names>,
    policy: AddressPolicy,
}

impl Vetting {
    /// Checks URLs by these settings. Names are resolved as the system is configured.
    #[must_use]
    pub fn new(delivery: &DeliverySettings) -> Self {
        Self::with(delivery, Names::system(limits(delivery)))
    }

    /// Like `new`, but resolves names with `names`.
    #[must_use]
    pub fn with(delivery: &DeliverySettings, names: Names) -> Self {
        Self { names: Some(names).filter(|_| delivery.proxy.is_empty()), policy: policy(delivery) }
    }

    /// Checks `url`, and takes at most `delivery.resolve_timeout`. Returns a warning if its host has no address for now:
    /// the name may be set up later, or the name servers may be down.
    ///
    /// # Errors
    /// [`BadWebhook`] if requests may not go to the URL. It names no address that a name resolves to.
    pub async fn check(&self, url: &Url) -> Result<Option<String>, BadWebhook> {
        let bad = |problem| BadWebhook { field: "url", problem };
        self.policy.check_url(url).map_err(|why| bad(why.to_string()))?;
        let (Some(names), Some(Host::Domain(name))) = (&self.names, url.host()) else { return Ok(None) };
        match guard::resolve(names, &self.policy, name).await {
            Ok(_) => Ok(None),
            Err(NoAddress::Unresolved(_)) => Ok(Some(format!(
                "The host {name} has no address for now. Nothing can be delivered before it has one. Check its spelling."
            ))),
            Err(NoAddress::Forbidden(_)) => Err(bad(format!(
                "the host {name} has an address that requests may not go to; only hosts with public addresses are \
                 allowed, and those in delivery.allow_networks"
            ))),
        }
    }
}

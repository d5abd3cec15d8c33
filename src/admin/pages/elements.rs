//! Small elements that several pages use.

use maud::{Markup, html};

use crate::admin::auth::Session;

/// The hidden field that every form must carry.
pub fn csrf(session: &Session) -> Markup {
    html! { input type="hidden" name="csrf" value=(session.csrf); }
}

/// A time in UTC. The script shows it in the reader's time zone.
pub fn time(rfc3339: &str) -> Markup {
    html! { time datetime=(rfc3339) { (rfc3339.replace('T', " ").replace(".000Z", " UTC").replace('Z', " UTC")) } }
}

/// An option of a `select`.
pub fn option(value: &str, label: &str, selected: &str) -> Markup {
    html! { option value=(value) selected[value == selected] { (label) } }
}

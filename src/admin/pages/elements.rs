//! Small elements that several pages use.

use maud::{Markup, html};

use crate::admin::sessions::Session;

/// The hidden field that every form must carry.
pub fn csrf(session: &Session) -> Markup {
    html! { input type="hidden" name="csrf" value=(session.csrf); }
}

/// A time in UTC. The script shows it in the reader's time zone.
pub fn time(rfc3339: &str) -> Markup {
    html! { time datetime=(rfc3339) { (rfc3339.replace('T', " ").replace(".000Z", " UTC").replace('Z', " UTC")) } }
}

/// Says that a session may only read, so that nobody looks for the forms.
pub fn only_reads(session: &Session) -> Markup {
    html! { p .hint { "You are signed in with the token " code { (session.name) } ", which may only read." } }
}

/// An option of a `select`.
pub fn option(value: &str, label: &str, selected: &str) -> Markup {
    html! { option value=(value) selected[value == selected] { (label) } }
}

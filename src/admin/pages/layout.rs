//! The frame of a page for somebody who signed in: the navigation, and the message after an action.

use maud::{Markup, html};

use super::elements::csrf;
use crate::admin::document::document;
use crate::admin::sessions::Session;

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NavItem {
    Webhooks,
    Search,
    DeadLetters,
    Status,
    Audit,
}

const NAV_ITEMS: [(NavItem, &str, &str); 5] = [
    (NavItem::Webhooks, "/settings/webhooks", "Webhooks"),
    (NavItem::Search, "/deliveries", "Search"),
    (NavItem::DeadLetters, "/dead-letters", "Dead letters"),
    (NavItem::Status, "/status", "Status"),
    (NavItem::Audit, "/audit", "Audit"),
];

/// A whole page. Without a session it has no navigation.
pub fn layout(title: &str, session: Option<&Session>, current: Option<NavItem>, content: &Markup) -> Markup {
    let navigation = html! {
        @if let Some(session) = session {
            nav aria-label="Main" {
                @for (item, address, name) in NAV_ITEMS {
                    a href=(address) aria-current=[(current == Some(item)).then_some("page")] { (name) }
                }
            }
            form method="post" action="/sign-out" { (csrf(session)) button .quiet { "Sign out" } }
        }
    };
    document(title, &navigation, content)
}

/// The message that a page shows once, after the action that `done` names.
pub fn flash(done: Option<&str>) -> Markup {
    let unresolved = match done {
        Some("added-unresolved") => Some("Webhook added"),
        Some("changed-unresolved") => Some("Saved"),
        _ => None,
    };
    if let Some(saved) = unresolved {
        let warning =
            "its host has no address for now. Nothing can be delivered before it has one. Check its spelling.";
        return html! { p .flash.warn role="status" { (saved) ", but " (warning) } };
    }
    let sentence = match done {
        Some("added") => "Webhook added. It gets every event from now on.",
        Some("changed") => "Saved. The next event uses these settings.",
        Some("paused") => "Paused: nothing is sent. What it misses is counted and can be sent later.",
        Some("held") => "Paused: nothing is sent, and deliveries wait until it is resumed.",
        Some("resumed") => "Active again: it gets every event from now on.",
        Some("rotated") => "Secret rotated.",
        Some("tested") => "Test event sent. Here is the result.",
        Some("redelivered") => "Sent again through the queue. It appears here in a moment, under the same delivery id.",
        Some("deleted") => "Webhook deleted. Nothing more is sent to it.",
        Some("stopped") => "The replay ends after its current batch.",
        _ => return Markup::default(),
    };
    html! { p .flash.ok role="status" { (sentence) } }
}

//! What every page has around it.

use maud::{DOCTYPE, Markup, html};

use crate::admin::auth::Session;

/// Places that the head of a page leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Webhooks,
    DeadLetters,
    Status,
}

const PLACES: [(Place, &str, &str); 3] = [
    (Place::Webhooks, "/settings/webhooks", "Webhooks"),
    (Place::DeadLetters, "/dead-letters", "Dead letters"),
    (Place::Status, "/status", "Status"),
];

/// A whole page.
pub fn layout(title: &str, session: Option<&Session>, here: Option<Place>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Optio webhooks" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/assets/style.css";
                script src="/assets/app.js" defer {}
            }
            body {
                a .skip href="#main" { "Skip to the content" }
                header .top {
                    a .brand href="/settings/webhooks" { "Optio webhooks" }
                    @if let Some(session) = session {
                        nav aria-label="Main" {
                            @for (place, address, name) in PLACES {
                                a href=(address) aria-current=[(here == Some(place)).then_some("page")] { (name) }
                            }
                        }
                        form method="post" action="/sign-out" { (csrf(session)) button .quiet { "Sign out" } }
                    }
                }
                main #main tabindex="-1" { (content) }
            }
        }
    }
}

/// What every form of ours carries.
pub fn csrf(session: &Session) -> Markup {
    html! { input type="hidden" name="csrf" value=(session.csrf); }
}

/// Said once, after something was done.
pub fn flash(done: Option<&str>) -> Markup {
    let sentence = match done {
        Some("added") => "Webhook added. It gets every event from now on.",
        Some("changed") => "Saved. The next event goes by it.",
        Some("paused") => "Paused: nothing is sent, and what waits for it is dropped as it comes up.",
        Some("resumed") => "Active again: it gets every event from now on.",
        Some("rotated") => "Secret rotated.",
        Some("tested") => "Test event sent. Here is what came of it.",
        Some("redelivered") => "Sent again through the queue; it appears here in a moment, under the same delivery id.",
        Some("deleted") => "Webhook deleted. Nothing more is sent to it.",
        Some("stopped") => "The replay ends after the batch that is on its way.",
        _ => return Markup::default(),
    };
    html! { p .flash.ok role="status" { (sentence) } }
}

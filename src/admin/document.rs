//! The HTML document around every page.

use maud::{DOCTYPE, Markup, html};

/// A whole document: `content` below a header that holds the name of the program and `navigation`.
pub fn document(title: &str, navigation: &Markup, content: &Markup) -> Markup {
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
                    (navigation)
                }
                main #main tabindex="-1" { (content) }
            }
        }
    }
}

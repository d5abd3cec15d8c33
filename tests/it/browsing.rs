//! The pages as a person uses them, most of them in a real browser.

use optio_webhooks::event::EventType;
use optio_webhooks::signature::SigningSecret;
use serde_json::json;

use crate::harness::browser::Browser;
use crate::harness::worker::Worker;
use crate::harness::world::SECRET;
use crate::harness::{Reply, World, eventually, skipped};

/// Starts a worker and a browser that is signed in. Returns `None` if there is no browser.
async fn signed_in(world: &World) -> Option<(Worker, Browser)> {
    let worker = world.worker().await;
    let browser = Browser::start(&worker.address()).await?;
    browser.client.set_window_size(1280, 1000).await.unwrap();
    browser.sign_in().await;
    Some((worker, browser))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_add_a_webhook_and_show_its_deliveries_live() {
    let world = World::new().await;
    let Some((_worker, browser)) = signed_in(&world).await else { return };
    browser.sees("No webhooks yet").await;
    browser.press("Add webhook").await;
    // A rejected form keeps the values of its other fields.
    browser.fill("url", "ftp://example.com/hook").await;
    browser.fill("description", "our dashboard").await;
    browser.press("Save").await;
    browser.sees("url: the scheme ftp: is not allowed").await;
    assert_eq!(browser.value("description").await, "our dashboard");
    browser.fill("url", "https://hooks.slack.com/services/T/B/x").await;
    assert_eq!(browser.value("format").await, "slack", "a Slack URL selects Slack's format");
    browser.fill("url", &world.receiver.url("/hook")).await;
    assert_eq!(browser.value("format").await, "", "another URL selects the automatic format");
    browser.press("Generate").await;
    let secret = browser.value("secret").await;
    assert!(secret.starts_with("whsec_") && secret.len() > 30);
    browser.tick("review.completed").await;
    browser.screenshot("add").await;
    browser.press("Save").await;
    browser.sees("Webhook added").await;

    browser.press("Deliveries").await;
    browser.sees("Nothing has been sent to this webhook recently").await;
    browser.sees("Live").await;
    world.receiver.answer(|_| Reply { body: "thank you".into(), ..Reply::status(201) });
    world.emit(EventType::ReviewCompleted, 1).await;
    let request = world.receiver.arrived(1).await.remove(0);
    assert_eq!(
        request.header("x-optio-signature"),
        SigningSecret::stored(secret.as_str().into()).optio(&request.body).unwrap()
    );
    browser.sees("Delivered 201").await;
    assert!(!browser.text().await.contains("Nothing has been sent"));
    browser.screenshot("deliveries").await;
    browser.press("Details").await;
    for text in
        [&request.delivery(), request.header("x-optio-signature"), "thank you", "Fix login redirect", "Status 201"]
    {
        browser.sees(text).await;
    }
    browser.screenshot("delivery").await;
    browser.open("/settings/webhooks").await;
    browser.sees("100 %").await;
    browser.screenshot("list").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_change_pause_rotate_test_redeliver_and_delete() {
    let world = World::new().await;
    let Some((worker, browser)) = signed_in(&world).await else { return };
    let webhook = world.webhook("/hook", &[EventType::TaskCompleted]).await;
    let path = format!("/settings/webhooks/{webhook}");
    let saved = async || world.store().get(webhook).await.unwrap().unwrap();

    browser.open(&path).await;
    browser.tick("task.failed").await;
    browser.fill("rate", "20").await;
    browser.press("Save changes").await;
    browser.sees("Saved.").await;
    assert_eq!(saved().await.events, [EventType::TaskCompleted, EventType::TaskFailed]);
    assert_eq!(saved().await.secret.unwrap().text().expose(), SECRET, "a secret that isn't on the form stays");

    // Somebody else changes the webhook while its page is open.
    let described = Some(serde_json::json!({ "description": "of another person" }));
    assert_eq!(worker.call("PATCH", &format!("/api/webhooks/{webhook}"), described).await.0, 200);
    browser.fill("rate", "30").await;
    browser.press("Save changes").await;
    browser.sees("Somebody has changed this webhook").await;
    assert_eq!(saved().await.description.as_deref(), Some("of another person"));
    browser.press("Save changes").await;
    browser.sees("Saved.").await;
    assert_eq!((saved().await.description, saved().await.rate_per_second.unwrap().get()), (None, 30));

    browser.press("Pause").await;
    browser.sees("Paused: nothing is sent").await;
    assert!(!saved().await.active);
    browser.press("Resume").await;
    browser.sees("Active again").await;

    browser.fill("secret", "the next one").await;
    browser.press("Rotate secret").await;
    browser.sees("Secret rotated").await;
    assert_eq!(saved().await.previous_secret.unwrap().secret.text().expose(), SECRET);
    browser.press("Rotate secret").await;
    browser.sees("copy it now").await;
    assert!(browser.text().await.contains(saved().await.secret.unwrap().text().expose()));

    world.receiver.answer(|_| Reply { body: "out of order".into(), ..Reply::status(503) });
    browser.choose("event", "task.needs_attention").await;
    browser.press("Send test event").await;
    browser.sees("Test event sent").await;
    for text in ["Failed 503", "out of order", "the endpoint answered with a status that isn't 2xx"] {
        browser.sees(text).await;
    }
    let first = world.receiver.arrived(1).await.remove(0);
    world.receiver.answer(|_| Reply::status(200));
    browser.press("Redeliver").await;
    browser.sees("Sent again").await;
    let again = world.receiver.arrived(2).await.remove(1);
    assert_eq!((again.delivery(), again.body), (first.delivery(), first.body));
    browser.sees("Delivered 200").await;
    browser.choose("success", "false").await;
    browser.press("Filter").await;
    eventually("the log shows only failures", async || {
        let text = browser.text().await;
        (text.contains("Failed 503") && !text.contains("Delivered 200")).then_some(())
    })
    .await;

    browser.open(&path).await;
    browser.press("Delete webhook…").await;
    browser.sees("Pending deliveries in the queue will not be sent after deletion").await;
    browser.press("Delete").await;
    browser.sees("Webhook deleted").await;
    assert_eq!(world.store().get(webhook).await.unwrap(), None);
    browser.press("Sign out").await;
    browser.sees("Admin token").await;
    browser.open(&path).await;
    assert_eq!(browser.path().await, "/sign-in", "a signed-out session gets no page");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_replay_dead_letters_and_show_the_progress() {
    let world = World::with(&[("delivery.attempts_max", "1")]).await;
    let Some((_worker, browser)) = signed_in(&world).await else { return };
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    world.receiver.answer(|_| Reply::status(500));
    world.emit(EventType::TaskFailed, 3).await;
    world.write("poison", Some(b"not json")).await;
    world.dead_lettered(4).await;
    world.receiver.answer(|_| Reply::status(200));
    browser.press("Dead letters").await;
    browser.sees("malformed").await;
    browser.screenshot("dead-letters").await;
    browser.choose("reason", "exhausted").await;
    browser.fill("webhook", &webhook.to_string()).await;
    browser.press("Filter").await;
    browser.press("Replay matching").await;
    browser.client.accept_alert().await.unwrap();
    browser.sees("Replay done").await;
    assert_eq!(world.receiver.delivered(3).await.len(), 3);
    browser.open("/dead-letters?reason=malformed").await;
    browser.press("Details").await;
    browser.sees("not json").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_pauses_a_webhook_and_sends_what_it_missed() {
    let world = World::new().await;
    let webhook = world.webhook("/hook", &[EventType::TaskCompleted]).await;
    let Some((_worker, browser)) = signed_in(&world).await else { return };
    let path = format!("/settings/webhooks/{webhook}");
    browser.open(&path).await;
    browser.press("Pause").await;
    browser.sees("What it misses is counted and can be sent later").await;
    world.emit(EventType::TaskCompleted, 3).await;
    eventually("the page counts the events", async || {
        browser.open(&path).await;
        browser.text().await.contains("It missed 3 events").then_some(())
    })
    .await;
    browser.sees("Resume the webhook to send them").await;
    browser.press("Resume").await;
    browser.press("Send what it missed").await;
    browser.sees("Replay done").await;
    assert_eq!(world.receiver.delivered(3).await.len(), 3);
    browser.open("/deliveries").await;
    browser.sees("Delivered 200").await;
    browser.press("task.completed").await;
    browser.sees("attempt 1").await;
    browser.open(&path).await;
    assert!(!browser.text().await.contains("It missed"));
    browser.tick("hold-yes").await;
    browser.press("Pause").await;
    browser.sees("deliveries wait until it is resumed").await;
    assert!(world.store().get(webhook).await.unwrap().unwrap().hold);
    browser.close().await;
}

/// The name and the path of each page, with data for all of them to show.
async fn pages(world: &World, worker: &Worker) -> Vec<(&'static str, String)> {
    let webhook = world.webhook("/hook", &EventType::TASKS).await;
    let path = format!("/settings/webhooks/{webhook}");
    world.receiver.answer(|_| Reply { body: "no".into(), ..Reply::status(500) });
    world.emit(EventType::TaskFailed, 1).await;
    world.dead_lettered(1).await;
    let entry = eventually("the log has an entry", async || {
        let (_, log) = worker.call("GET", &format!("/api/webhooks/{webhook}/deliveries"), None).await;
        log["deliveries"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let (_, letters) = worker.call("GET", "/api/dead-letters", None).await;
    let letter = letters["deadLetters"][0]["id"].as_str().unwrap().to_owned();
    let event = eventually("the event is found", async || {
        let (_, found) = worker.call("GET", "/api/deliveries?success=false", None).await;
        found["deliveries"][0]["eventId"].as_str().map(str::to_owned)
    })
    .await;
    // This one is paused, and missed an event.
    let paused = world.webhook("/paused", &[EventType::TaskCompleted]).await;
    worker.call("PATCH", &format!("/api/webhooks/{paused}"), Some(json!({ "active": false }))).await;
    eventually("the paused webhook misses events", async || {
        world.emit(EventType::TaskCompleted, 1).await;
        let (_, missed) = worker.call("GET", &format!("/api/webhooks/{paused}/missed"), None).await;
        missed["events"].as_u64().filter(|events| *events > 0)
    })
    .await;
    let all = json!({ "all": true, "dryRun": true });
    let (_, replay) = worker.call("POST", "/api/dead-letters/replay", Some(all)).await;
    let replay = replay["replay"]["id"].as_str().unwrap().to_owned();
    vec![
        ("list", "/settings/webhooks".to_owned()),
        ("new", "/settings/webhooks/new".to_owned()),
        ("settings", path.clone()),
        ("deliveries", format!("{path}/deliveries")),
        ("delivery", format!("{path}/deliveries/{entry}")),
        ("verify", format!("{path}/verify")),
        ("delete", format!("{path}/delete")),
        ("paused", format!("/settings/webhooks/{paused}")),
        ("search", "/deliveries".to_owned()),
        ("event", format!("/events/{event}")),
        ("dead-letters", "/dead-letters".to_owned()),
        ("dead-letter", format!("/dead-letters/{letter}")),
        ("replay", format!("/dead-letters/replays/{replay}")),
        ("status", "/status".to_owned()),
        ("audit", "/audit".to_owned()),
        ("missing", "/settings/webhooks/none".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_a_phone_and_passes_accessibility_checks() {
    let world = World::with(&[("delivery.attempts_max", "1")]).await;
    let Some((worker, browser)) = signed_in(&world).await else { return };
    let axe = std::env::var("AXE_CORE").ok().and_then(|path| std::fs::read_to_string(path).ok());
    if axe.is_none() {
        skipped("axe-core is missing (AXE_CORE), so accessibility was not checked; npm installs it");
    }
    let pages = pages(&world, &worker).await;
    let mut found = Vec::new();
    for scheme in ["light", "dark"] {
        let emulate = json!({ "media": "", "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        for (name, path) in &pages {
            browser.client.set_window_size(1440, 1000).await.unwrap();
            browser.open(path).await;
            browser.emulate(&emulate).await;
            browser.screenshot(&format!("{name}-{scheme}")).await;
            if let Some(axe) = &axe {
                found.extend(browser.violations(axe).await.into_iter().map(|it| format!("{name}, {scheme}: {it}")));
            }
            browser.narrow(375).await;
            let width = browser.client.execute("return document.documentElement.scrollWidth", vec![]).await.unwrap();
            if width.as_u64().unwrap() > 375 {
                found.push(format!("{name} is {width} px wide on a screen of 375 px"));
            }
            if let Some(axe) = &axe {
                let violations = browser.violations(axe).await.into_iter();
                found.extend(violations.map(|it| format!("{name}, {scheme}, 375 px: {it}")));
            }
            browser.screenshot(&format!("{name}-{scheme}-375")).await;
            browser.wide().await;
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_javascript_forms_work_and_need_the_token_of_their_session() {
    let world = World::new().await;
    let worker = world.worker().await;
    let client = crate::harness::worker::client();
    let post = async |path: &str, cookie: &str, fields: &[(&str, &str)]| {
        let body = serde_html_form::to_string(fields).unwrap();
        let request = client.post(format!("{}{path}", worker.address())).header("cookie", cookie);
        request.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.unwrap()
    };
    let refused = post("/sign-in", "", &[("token", "wrong")]).await;
    assert_eq!(refused.status(), 401);
    let signed_in = post("/sign-in", "", &[("token", crate::harness::world::TOKEN), ("next", "//evil.example/")]).await;
    assert_eq!(
        (signed_in.status().as_u16(), signed_in.headers()["location"].to_str().unwrap()),
        (303, "/settings/webhooks")
    );
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let page = client.get(format!("{}/settings/webhooks/new", worker.address())).header("cookie", &cookie);
    let page = page.send().await.unwrap().text().await.unwrap();
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let url = world.receiver.url("/hook");
    let mut fields =
        vec![("url", url.as_str()), ("events", "task.failed"), ("events", "task.completed"), ("csrf", "made up")];
    assert_eq!(post("/settings/webhooks", &cookie, &fields).await.status(), 401);
    assert!(world.store().all().await.unwrap().1.is_empty(), "the refused form changed nothing");
    fields.pop();
    fields.push(("csrf", &csrf));
    let added = post("/settings/webhooks", &cookie, &fields).await;
    assert_eq!(added.status(), 303);
    let webhook = world.store().all().await.unwrap().1.remove(0);
    assert_eq!(webhook.events.len(), 2);
    let path = format!("/settings/webhooks/{}/delete", webhook.id);
    assert_eq!(post(&path, &cookie, &[("csrf", &csrf)]).await.status(), 303);
    assert!(world.store().all().await.unwrap().1.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_dead_letter_has_a_page_that_shows_it() {
    let world = World::with(&[("delivery.attempts_max", "1")]).await;
    let worker = world.worker().await;
    for path in ["/one", "/two", "/three"] {
        world.webhook(path, &[EventType::TaskFailed]).await;
    }
    world.receiver.answer(|_| Reply::status(500));
    world.emit(EventType::TaskFailed, 3).await;
    world.write("poison", Some(b"not json")).await;
    world.dead_lettered(10).await;
    let client = crate::harness::worker::client();
    let token = serde_html_form::to_string([("token", crate::harness::world::TOKEN)]).unwrap();
    let sign_in = client.post(format!("{}/sign-in", worker.address())).body(token);
    let signed_in = sign_in.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = async |path: &str| {
        let page = client.get(format!("{}{path}", worker.address())).header("cookie", &cookie).send().await.unwrap();
        (page.status().as_u16(), page.text().await.unwrap())
    };
    let (_, all) = worker.call("GET", "/api/dead-letters", None).await;
    let letters = all["deadLetters"].as_array().unwrap();
    assert_eq!(letters.len(), 10);
    for letter in letters {
        let (status, page) = page(&format!("/dead-letters/{}", letter["id"].as_str().unwrap())).await;
        let shown = letter["deliveryId"].as_str().unwrap_or("not json");
        assert!(status == 200 && page.contains(shown), "{status} {page}");
    }
    assert_eq!(page("/dead-letters/0/1000000").await.0, 404);
}

//! What the owner of a webhook can choose: headers, formats and filters.

use optio_webhooks::event::EventType;
use serde_json::json;

use crate::harness::worker::PROGRAM;
use crate::harness::world::TOKEN;
use crate::harness::{Reply, World};

const MASK: &str = "••••••";

fn program(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(PROGRAM);
    command.args(arguments).envs(world.environment()).envs(variables.iter().copied());
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_the_owner_are_on_every_attempt_and_their_values_are_shown_nowhere() {
    let world = World::new().await;
    let worker = world.worker().await;
    let secret = "Bearer customizing-header-value";
    let draft = json!({ "url": world.receiver.url("/hook"), "events": ["task.failed"],
        "headers": [{ "name": "Authorization", "value": secret }, { "name": "X-Route", "value": "blue" }] });
    let (status, added) = worker.call("POST", "/api/webhooks", Some(draft)).await;
    let shown = json!([{ "name": "Authorization", "value": MASK }, { "name": "X-Route", "value": MASK }]);
    assert_eq!((status, &added["webhook"]["headers"]), (201, &shown));
    let id = added["webhook"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/webhooks/{id}");

    let sent = std::sync::atomic::AtomicUsize::new(0);
    world.receiver.answer(move |_| {
        Reply::status(if sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 { 503 } else { 200 })
    });
    world.emit(EventType::TaskFailed, 1).await;
    for request in world.receiver.arrived(2).await {
        assert_eq!((request.header("authorization"), request.header("x-route")), (secret, "blue"));
    }
    let entries = world.logged(id.parse().unwrap()).await;
    assert_eq!(entries[0]["customHeaders"], json!(["Authorization", "X-Route"]));
    let (_, log) = worker.call("GET", &format!("{path}/deliveries"), None).await;
    assert_eq!(log["deliveries"][0]["requestHeaders"]["Authorization"], MASK);

    // The mask keeps a value, and a header that is left out is removed.
    let change =
        json!({ "headers": [{ "name": "authorization", "value": MASK }, { "name": "X-Team", "value": "red" }] });
    let (status, changed) = worker.call("PATCH", &path, Some(change)).await;
    assert_eq!((status, changed["webhook"]["headers"].as_array().unwrap().len()), (200, 2));
    // The command line changes one header and leaves the others alone.
    let (code, printed) = program(
        &world,
        &["webhooks", "update", &id, "--header-env", "X-Key=HEADER_KEY", "--remove-header", "x-team"],
        &[("HEADER_KEY", "customizing-from-variable")],
    );
    assert_eq!(code, Some(0), "{printed}");
    let (_, tested) = worker.call("POST", &format!("{path}/test"), None).await;
    assert_eq!(tested["delivery"]["success"], true);
    let request = world.receiver.arrived(3).await.pop().unwrap();
    assert_eq!((request.header("authorization"), request.header("x-key")), (secret, "customizing-from-variable"));
    assert!(!request.headers.contains_key("x-team") && !request.headers.contains_key("x-route"));

    let stored: String =
        redis::cmd("HGET").arg(world.keys().webhooks()).arg(&id).query_async(&mut world.redis.clone()).await.unwrap();
    let pages = worker.page_as(&worker.sign_in(TOKEN).await, &format!("/settings/webhooks/{id}")).await.1;
    assert!(pages.contains(&format!("Authorization: {MASK}")) || pages.contains(&format!("authorization: {MASK}")));
    for (place, text) in [("Redis", stored), ("the log", log.to_string()), ("the page", pages), ("stdout", printed)] {
        assert!(!text.contains("customizing-"), "{place}");
    }
    assert!(!worker.log().contains("customizing-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_not_allowed_is_refused_by_its_name_on_every_way_in() {
    let world = World::new().await;
    let worker = world.worker().await;
    let url = world.receiver.url("/hook");
    for (name, value, sentence) in [
        ("Host", "x", "headers: Host is reserved"),
        ("X-Optio-Event", "x", "headers: X-Optio-Event is reserved"),
        ("a b", "x", "isn't the name of a header"),
        ("X-Key", "customizing\r\nX-Other: 1", "headers: the value of X-Key has a character that isn't allowed"),
        ("X-Key", MASK, "headers: the value of X-Key is the mask"),
    ] {
        let draft = json!({ "url": url, "events": ["task.failed"], "headers": [{ "name": name, "value": value }] });
        let (status, problem) = worker.call("POST", "/api/webhooks", Some(draft)).await;
        assert_eq!(status, 400);
        assert!(problem["error"].as_str().unwrap().contains(sentence), "{problem}");
    }
    let arguments = ["webhooks", "add", "--url", &url, "--events", "task.failed", "--header", "TE: trailers"];
    let (code, printed) = program(&world, &arguments, &[]);
    assert_eq!(code, Some(2));
    assert!(printed.contains("headers: TE is reserved"), "{printed}");
    let cookie = worker.sign_in(TOKEN).await;
    let form =
        [("url", url.as_str()), ("events", "task.failed"), ("headers", "X-Key: customizing-lost\nConnection: x")];
    let (status, page) = worker.send_form(&cookie, "/settings/webhooks", &form).await;
    assert_eq!(status, 400);
    assert!(page.contains("headers: Connection is reserved") && page.contains("Enter the values again"));
    assert!(page.contains("X-Key: ") && !page.contains("customizing-lost"));
    assert_eq!(worker.call("GET", "/api/webhooks", None).await.1["webhooks"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_format_reaches_its_receiver_with_its_content_type() {
    let world = World::with(&[("webhooks.public_url", "https://optio.example.com/")]).await;
    let worker = world.worker().await;
    for format in ["discord", "teams", "cloudevents", "slack"] {
        let url = world.receiver.url(&format!("/{format}"));
        let draft = json!({ "url": url, "events": ["task.failed"], "format": format });
        assert_eq!(worker.call("POST", "/api/webhooks", Some(draft)).await.0, 201);
    }
    world.emit(EventType::TaskFailed, 1).await;
    let requests = world.receiver.arrived(4).await;
    let of = |path: &str| requests.iter().find(|request| request.path == path).unwrap();
    let event = of("/cloudevents");
    assert_eq!(event.header("content-type"), "application/cloudevents+json; charset=utf-8");
    let event = event.json();
    assert_eq!(
        (&event["type"], &event["source"]),
        (&json!("dev.optio.task.failed"), &json!("https://optio.example.com/"))
    );
    let task = event["data"]["taskId"].as_str().unwrap();
    let link = format!("https://optio.example.com/tasks/{task}");
    let discord = of("/discord");
    assert_eq!(discord.header("content-type"), "application/json");
    assert_eq!(discord.json()["embeds"][0]["url"], json!(link));
    assert_eq!(of("/teams").json()["attachments"][0]["content"]["actions"][0]["url"], json!(link));
    assert!(of("/slack").json().to_string().contains(&link));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_a_chat_presets_its_format_when_it_is_added_and_when_it_changes() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut path = None;
    for (url, format) in [
        (world.receiver.url("/hook"), "optio"),
        ("https://discord.com/api/webhooks/1/x".to_owned(), "discord"),
        ("https://discord.com./api/webhooks/1/x/slack".to_owned(), "slack"),
        ("https://prod-1.westeurope.logic.azure.com/workflows/x".to_owned(), "teams"),
    ] {
        let (method, body) = match &path {
            None => ("POST", json!({ "url": url, "events": ["task.failed"] })),
            Some(_) => ("PATCH", json!({ "url": url })),
        };
        let at = path.clone().unwrap_or_else(|| "/api/webhooks".to_owned());
        let (status, saved) = worker.call(method, &at, Some(body)).await;
        assert!(status < 300, "{saved}");
        assert_eq!(saved["webhook"]["format"], format, "{url}");
        path = Some(format!("/api/webhooks/{}", saved["webhook"]["id"].as_str().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_decides_which_events_arrive_and_can_be_tried_before_it_is_saved() {
    let world = World::new().await;
    let worker = world.worker().await;
    for (number, repository) in ["acme/one", "acme/two", "other/one"].into_iter().enumerate() {
        let mut transition = World::transition(EventType::TaskFailed);
        transition["taskId"] = json!(format!("t{number}"));
        transition["task"]["repoUrl"] = json!(format!("https://github.com/{repository}"));
        world.write("k", Some(transition.to_string().as_bytes())).await;
    }
    // No webhook exists yet, so nobody gets these.
    world.events_committed().await;
    let acme = json!({ "field": "task.repoUrl", "glob": "https://github.com/acme/*" });
    let (status, tried) = worker.call("POST", "/api/filters/try", Some(json!({ "filter": acme }))).await;
    assert_eq!((status, &tried["matching"], tried["events"].as_array().unwrap().len()), (200, &json!(2), 3), "{tried}");
    assert_eq!((&tried["events"][0]["taskId"], &tried["events"][0]["matches"]), (&json!("t2"), &json!(false)));
    let other_types = json!({ "filter": acme, "events": ["task.completed"] });
    assert_eq!(worker.call("POST", "/api/filters/try", Some(other_types)).await.1["matching"], 0);

    let url = world.receiver.url("/acme");
    let draft = json!({ "url": url, "events": ["task.failed"], "filter": acme });
    let (status, added) = worker.call("POST", "/api/webhooks", Some(draft)).await;
    assert_eq!((status, &added["webhook"]["filter"]), (201, &acme));
    let arguments = [
        "webhooks",
        "add",
        "--url",
        &world.receiver.url("/cli"),
        "--events",
        "task.failed",
        "--filter",
        r#"{"any": [{"field": "task.prNumber", "equals": 7}, {"field": "task.repoUrl", "glob": "*/other/*"}]}"#,
    ];
    let (code, printed) = program(&world, &arguments, &[]);
    assert_eq!(code, Some(0), "{printed}");
    for repository in ["acme/one", "other/one", "neither/one"] {
        let mut transition = World::transition(EventType::TaskFailed);
        transition["task"]["repoUrl"] = json!(format!("https://github.com/{repository}"));
        world.write("k", Some(transition.to_string().as_bytes())).await;
    }
    world.settled().await;
    let mut paths: Vec<String> = world.receiver.requests().into_iter().map(|request| request.path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/acme", "/cli"]);

    let cookie = worker.sign_in(TOKEN).await;
    let page =
        worker.page_as(&cookie, &format!("/settings/webhooks/{}", added["webhook"]["id"].as_str().unwrap())).await.1;
    assert!(page.contains(r#"value="https://github.com/acme/*""#), "{page}");
    let form =
        [("events", "task.failed"), ("filter_repo", "*neither*"), ("filter", r#"{"field": "taskId", "exists": true}"#)];
    let (status, page) = worker.send_form(&cookie, "/settings/webhooks/try-filter", &form).await;
    assert!(status == 200 && page.contains("1 of the last 6 events"), "{page}");
    let wrong =
        json!({ "url": url, "events": ["task.failed"], "filter": { "all": [{ "field": "task.repo", "equals": 1 }] } });
    let (status, problem) = worker.call("POST", "/api/webhooks", Some(wrong)).await;
    let sentence = problem["error"].as_str().unwrap();
    assert!(status == 400 && sentence.starts_with("filter: filter.all[0]: there is no field"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_thousand_webhooks_is_applied_and_the_second_plan_is_empty() {
    use std::fmt::Write as _;
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("webhooks.yaml");
    let mut yaml = "webhooks:\n".to_owned();
    for number in 0..1_000 {
        let url = world.receiver.url(&format!("/{number}"));
        writeln!(yaml, "  - name: hook-{number}\n    url: {url}\n    events: [task.failed]").unwrap();
        writeln!(yaml, "    secret: {{env: APPLIED_SECRET}}\n    headers: {{X-Number: \"{number}\"}}").unwrap();
    }
    std::fs::write(&path, &yaml).unwrap();
    let file = path.to_str().unwrap();
    let secret = [("APPLIED_SECRET", "applied-secret-of-the-test")];
    let last = |printed: &str| printed.trim().lines().last().unwrap().to_owned();
    let apply = |more: &[&str]| {
        let (code, printed) = program(&world, &[&["webhooks", "apply", "-f", file], more].concat(), &secret);
        assert_eq!(code, Some(0), "{printed}");
        printed
    };
    let dry = apply(&["--dry-run"]);
    assert_eq!(last(&dry), "1000 added, 0 changed, 0 removed, 0 unchanged if this were applied");
    assert_eq!(world.store().all().await.unwrap().1.len(), 0);
    assert_eq!(last(&apply(&[])), "1000 added, 0 changed, 0 removed, 0 unchanged");
    assert_eq!(last(&apply(&[])), "0 added, 0 changed, 0 removed, 1000 unchanged");

    // The export is the same configuration without a secret in it.
    let (_, exported) = program(&world, &["webhooks", "export"], &[]);
    assert!(exported.contains("stored: true") && !exported.contains("applied-secret"));
    let first_two = yaml.split("  - name: hook-2\n").next().unwrap().replace("task.failed", "task.completed");
    std::fs::write(&path, first_two).unwrap();
    assert!(apply(&[]).contains("998 other webhooks are not in the file and stay; --prune removes them"));
    assert_eq!(last(&apply(&["--prune"])), "0 added, 0 changed, 998 removed, 2 unchanged");
    std::fs::write(&path, exported).unwrap();
    let (code, printed) = program(&world, &["webhooks", "apply", "-f", file], &[]);
    assert_eq!(code, Some(2), "the export refers to secrets that are no longer stored: {printed}");
    assert!(printed.contains("nothing was changed") && printed.contains("use {env: NAME}"), "{printed}");
    assert_eq!(world.store().all().await.unwrap().1.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn put_adds_a_webhook_with_its_id_and_the_same_request_changes_nothing_more() {
    let world = World::new().await;
    let worker = world.worker().await;
    let path = "/api/webhooks/01a21cda-f840-77ff-b07d-167755a3ce9f";
    let draft = json!({ "url": world.receiver.url("/hook"), "events": ["task.failed"], "secret": "a secret of 24 bytes or more",
        "description": "first", "ratePerSecond": 5 });
    let (status, added) = worker.call("PUT", path, Some(draft.clone())).await;
    assert_eq!((status, &added["webhook"]["id"]), (201, &json!("01a21cda-f840-77ff-b07d-167755a3ce9f")), "{added}");
    assert_eq!(worker.call("PUT", path, Some(draft)).await.0, 200);
    let less = json!({ "url": world.receiver.url("/hook"), "events": ["task.completed"] });
    let (status, replaced) = worker.call("PUT", path, Some(less)).await;
    let webhook = &replaced["webhook"];
    assert_eq!((status, &webhook["description"], &webhook["ratePerSecond"]), (200, &json!(null), &json!(null)));
    assert_eq!((&webhook["secret"], &webhook["createdAt"]), (&json!(MASK), &added["webhook"]["createdAt"]));
    let (status, problem) = worker.call("PUT", path, Some(json!({ "events": ["task.failed"] }))).await;
    assert!(status == 400 && problem["error"].as_str().unwrap().starts_with("url: is needed"), "{problem}");
    assert_eq!(worker.call("PUT", "/api/webhooks/x", Some(json!({}))).await.0, 400);
    assert_eq!(worker.call("GET", "/api/webhooks", None).await.1["webhooks"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_with_an_idempotency_key_is_done_once() {
    let world = World::new().await;
    let worker = world.worker().await;
    let post = async |key: &str, path: &str, body: serde_json::Value| {
        let request = crate::harness::worker::client().post(format!("{}{path}", worker.address()));
        let answer = request
            .bearer_auth(TOKEN)
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let replayed = answer.headers().contains_key("idempotency-replayed");
        (answer.status().as_u16(), replayed, answer.text().await.unwrap())
    };
    let draft = json!({ "url": world.receiver.url("/hook"), "events": ["task.failed"] });
    let first = post("k1", "/api/webhooks", draft.clone()).await;
    assert_eq!((first.0, first.1), (201, false));
    let second = post("k1", "/api/webhooks", draft.clone()).await;
    assert_eq!((second.0, second.1, &second.2), (201, true, &first.2));
    let other = json!({ "url": world.receiver.url("/other"), "events": ["task.failed"] });
    assert_eq!(post("k1", "/api/webhooks", other.clone()).await.0, 422);
    assert_eq!(post("", "/api/webhooks", other.clone()).await.0, 400);
    assert_eq!(post("k2", "/api/webhooks", json!({ "url": 1 })).await.0, 400);
    assert_eq!(worker.call("GET", "/api/webhooks", None).await.1["webhooks"].as_array().unwrap().len(), 1);

    // A generated secret is in the kept answer, and in no readable form in Redis.
    let webhook: serde_json::Value = serde_json::from_str(&first.2).unwrap();
    let path = format!("/api/webhooks/{}/rotate-secret", webhook["webhook"]["id"].as_str().unwrap());
    let rotated = post("k3", &path, json!({})).await;
    assert_eq!(post("k3", &path, json!({})).await.2, rotated.2);
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("{}reply:*", world.keys().prefix()))
        .query_async(&mut world.redis.clone())
        .await
        .unwrap();
    assert_eq!(keys.len(), 3);
    for key in keys {
        let kept: String = redis::cmd("GET").arg(&key).query_async(&mut world.redis.clone()).await.unwrap();
        let left: i64 = redis::cmd("TTL").arg(&key).query_async(&mut world.redis.clone()).await.unwrap();
        assert!(!kept.contains("whsec_") && (1..=86_400).contains(&left), "{kept}");
    }

    // What stands in the way of a request may change, so such an answer isn't kept.
    let id = webhook["webhook"]["id"].as_str().unwrap();
    let path = format!("/api/webhooks/{id}");
    let missed = json!({ "webhook": id, "missed": true });
    assert_eq!(worker.call("PATCH", &path, Some(json!({ "active": false }))).await.0, 200);
    assert_eq!(post("k4", "/api/dead-letters/replay", missed.clone()).await.0, 409);
    assert_eq!(worker.call("PATCH", &path, Some(json!({ "active": true }))).await.0, 200);
    let begun = post("k4", "/api/dead-letters/replay", missed).await;
    assert_eq!((begun.0, begun.1), (202, false), "{}", begun.2);
    let stored = world.store().get(id.parse().unwrap()).await.unwrap().unwrap();
    assert!(world.store().add(&stored).await.unwrap().is_none(), "an existing webhook isn't overwritten");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delivery_log_is_searched_by_task_delivery_status_and_time() {
    let world = World::new().await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    world.receiver.answer(|request| Reply::status(if request.json()["taskId"] == "t1" { 201 } else { 200 }));
    for task in ["t1", "t2", "t3"] {
        let mut transition = World::transition(EventType::TaskFailed);
        transition["taskId"] = json!(task);
        world.write(task, Some(transition.to_string().as_bytes())).await;
    }
    let requests = world.receiver.arrived(3).await;
    world.settled().await;
    let found = async |query: &str| {
        let (status, page) = worker.call("GET", &format!("/api/webhooks/{webhook}/deliveries?{query}"), None).await;
        assert_eq!(status, 200, "{page}");
        page["deliveries"].as_array().unwrap().len()
    };
    let delivery = requests[0].delivery();
    for (query, count) in [
        ("search=t2", 1),
        ("search=t4", 0),
        ("search=201", 1),
        ("search=200", 2),
        (&*format!("search={delivery}"), 1),
        ("since=1h", 3),
        ("until=1h", 0),
        ("since=2020-01-01&search=t3&success=true", 1),
    ] {
        assert_eq!(found(query).await, count, "{query}");
    }
    let cookie = worker.sign_in(TOKEN).await;
    let base = format!("/settings/webhooks/{webhook}");
    let page = worker.page_as(&cookie, &format!("{base}/deliveries?search=t1&since=2h")).await.1;
    assert!(page.contains("Delivered 201") && !page.contains("Delivered 200"), "{page}");
    assert_eq!(worker.page_as(&cookie, &format!("{base}/deliveries?since=yesterday")).await.0, 400);

    let entry = worker.call("GET", &format!("/api{}/deliveries?search=t1", &base[9..]), None).await.1;
    let entry = entry["deliveries"][0]["id"].as_str().unwrap().to_owned();
    let page = worker.page_as(&cookie, &format!("{base}/deliveries/{entry}")).await.1;
    assert!(page.contains("curl -X POST") && page.contains("--data-raw") && page.contains("?search=t1"), "{page}");

    // The webhook's page opens with its attempts, as a chart and as a table, and the list has a small chart.
    let page = worker.page_as(&cookie, &base).await.1;
    assert!(page.contains("3 delivered, 0 failed (100 % delivered)") && page.contains("The last 7 days"), "{page}");
    assert!(page.contains("<svg") && page.contains("As a table"));
    assert!(worker.page_as(&cookie, "/settings/webhooks").await.1.contains("class=\"spark\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_webhooks_comes_in_pages_if_asked_for() {
    let world = World::new().await;
    let worker = world.worker().await;
    for number in 0..5 {
        world.webhook(&format!("/{number}"), &[EventType::TaskFailed]).await;
    }
    let mut seen = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let (status, page) = worker.call("GET", &format!("/api/webhooks?{query}"), None).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(page["webhooks"].as_array().unwrap().iter().map(|webhook| webhook["id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("limit=2&after={next}");
    }
    let all = worker.call("GET", "/api/webhooks", None).await.1;
    let ids: Vec<_> = all["webhooks"].as_array().unwrap().iter().map(|webhook| webhook["id"].clone()).collect();
    assert_eq!((seen, ids.len()), (ids.clone(), 5));
    for bad in ["limit=0", "limit=x", "after=x", "page=2", "after=01a21cda-f840-77ff-b07d-167755a3ce9f"] {
        assert_eq!(worker.call("GET", &format!("/api/webhooks?{bad}"), None).await.0, 400, "{bad}");
    }
}

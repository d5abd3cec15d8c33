//! The whole program: the details of failures that people see, and failures that cost no attempt.

use optio_webhooks::event::EventType;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::harness::World;
use crate::harness::endpoint::{Endpoint, OK, request, reset};
use crate::harness::worker::client;

#[tokio::test(flavor = "multi_thread")]
async fn the_detail_of_a_failure_is_in_log_api_and_page() {
    let world = World::with(&[("delivery.attempts_max", "1")]).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut webhook = world.unsaved("/", &[EventType::TaskCompleted]);
    webhook.url = format!("https://127.0.0.1:{port}/a-secret-path").parse().unwrap();
    world.store().put(&webhook).await.unwrap();
    let worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 1).await;
    world.dead_lettered(1).await;
    world.settled().await;

    let expected = format!("connecting: 127.0.0.1:{port}: Connection refused (os error 111)");
    let logged = world.logged(webhook.id).await;
    assert_eq!((&logged[0]["error"], &logged[0]["errorDetail"]), (&json!("connect"), &json!(expected)));
    let path = format!("/api/webhooks/{}/deliveries", webhook.id);
    let (_, shown) = worker.call("GET", &path, None).await;
    let entry = &shown["deliveries"][0];
    assert_eq!(entry["errorDetail"], json!(expected));
    let token = serde_html_form::to_string([("token", crate::harness::world::TOKEN)]).unwrap();
    let sign_in = client().post(format!("{}/sign-in", worker.address())).body(token);
    let signed_in = sign_in.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    let cookie = signed_in.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page =
        format!("{}/settings/webhooks/{}/deliveries/{}", worker.address(), webhook.id, entry["id"].as_str().unwrap());
    let page = client().get(page).header("cookie", cookie).send().await.unwrap().text().await.unwrap();
    assert!(page.contains(&expected), "{page}");

    // A test delivery has the same detail. A success has none.
    let (_, tested) = worker.call("POST", &format!("/api/webhooks/{}/test", webhook.id), Some(json!({}))).await;
    assert_eq!(tested["delivery"]["errorDetail"], json!(expected));
    let works = world.webhook("/works", &[EventType::TaskCompleted]).await;
    let (_, tested) = worker.call("POST", &format!("/api/webhooks/{works}/test"), Some(json!({}))).await;
    assert_eq!((&tested["delivery"]["success"], &tested["delivery"]["errorDetail"]), (&json!(true), &json!(null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_closes_kept_connections_costs_no_attempt() {
    let world = World::new().await;
    // Each connection serves two requests. It is closed or reset after the third has been read.
    let endpoint = Endpoint::start(|mut stream, number| async move {
        for _ in 0..2 {
            if request(&mut stream).await.is_none() {
                return;
            }
            stream.write_all(OK).await.unwrap();
        }
        request(&mut stream).await;
        if number % 2 == 0 {
            reset(stream);
        }
    })
    .await;
    let mut webhook = world.unsaved("/", &[EventType::TaskCompleted]);
    webhook.url = endpoint.url().parse().unwrap();
    world.store().put(&webhook).await.unwrap();
    let _worker = world.worker().await;
    // The events come one after another, so that connections are reused.
    for _ in 0..17 {
        world.emit(EventType::TaskCompleted, 1).await;
        world.settled().await;
    }
    let logged = world.logged(webhook.id).await;
    assert_eq!(logged.len(), 17);
    assert!(logged.iter().all(|entry| entry["success"] == json!(true) && entry["attempt"] == json!(1)), "{logged:?}");
    assert!(endpoint.connections() < 17, "connections are reused");
}

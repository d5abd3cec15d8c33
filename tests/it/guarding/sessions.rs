//! Sessions of people: how they end, and what happens to them while Redis is away.

use std::process::Command;

use optio_webhooks::event::EventType;

use super::{READER, client_at, with_reader};
use crate::harness::proxy::Proxy;
use crate::harness::worker::PROGRAM;
use crate::harness::world::{SEALING_KEY, TOKEN};
use crate::harness::{World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_on_every_server_when_its_person_signs_out() {
    let world = World::with(&with_reader()).await;
    let (one, other) = (world.admin().await, world.admin().await);
    let (ended, kept) = (one.sign_in(TOKEN).await, one.sign_in(READER).await);
    assert_eq!(other.page_as(&ended, "/settings/webhooks").await.0, 200, "every server takes the session");
    assert_eq!(one.send_form(&ended, "/sign-out", &[]).await.0, 303);
    assert_eq!(one.page_as(&ended, "/settings/webhooks").await.0, 303, "the cookie is worth nothing now");
    eventually("the other server knows it too", async || {
        (other.page_as(&ended, "/settings/webhooks").await.0 == 303).then_some(())
    })
    .await;
    assert_eq!(other.page_as(&kept, "/settings/webhooks").await.0, 200);

    let mut command = Command::new(PROGRAM);
    command.args(["sessions", "revoke"]).envs(world.environment());
    assert!(tokio::task::block_in_place(|| command.output().unwrap()).status.success());
    for server in [&one, &other] {
        eventually("all sessions end", async || {
            (server.page_as(&kept, "/settings/webhooks").await.0 == 303).then_some(())
        })
        .await;
    }
    let again = one.sign_in(READER).await;
    eventually("a new session works on the other server", async || {
        (other.page_as(&again, "/settings/webhooks").await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token() {
    let mut world = World::with(&with_reader()).await;
    let before = world.admin().await;
    let (admin, reader) = (before.sign_in(TOKEN).await, before.sign_in(READER).await);
    drop(before);
    world.set("admin.token", "the token was changed");
    let after = world.admin().await;
    assert_eq!(after.page_as(&admin, "/settings/webhooks").await.0, 303);
    assert_eq!(after.page_as(&reader, "/settings/webhooks").await.0, 200);
    world.set("admin.tokens", "[]");
    assert_eq!(world.admin().await.page_as(&reader, "/settings/webhooks").await.0, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_nobody_is_let_in_and_nobody_is_signed_out() {
    let mut world = World::with(&[("redis.timeout", "200ms")]).await;
    let proxy = Proxy::start(world.config().redis.url.expose()).await;
    world.set("redis.url", &proxy.url());
    let worker = world.admin().await;
    let cookie = worker.sign_in(TOKEN).await;
    proxy.freeze();
    proxy.throttle(1);
    eventually("the session can't be checked", async || {
        let (status, page) = worker.page_as(&cookie, "/settings/webhooks").await;
        (status == 503 && page.contains("Redis is away")).then_some(())
    })
    .await;
    let sign_in =
        client_at(1).post(format!("{}/sign-in", worker.address())).body(format!("token={}", TOKEN.replace(' ', "+")));
    let refused = sign_in.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    assert!(refused.status() == 503 && !refused.headers().contains_key("set-cookie"), "{}", refused.status());
    assert!(refused.text().await.unwrap().contains("Redis is away"));
    proxy.throttle(0);
    proxy.cut();
    eventually("the same session goes on", async || {
        (worker.page_as(&cookie, "/settings/webhooks").await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_view_ends_with_its_session_and_after_its_longest_life() {
    let mut world = World::new().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    let live = async |address: String, cookie: &str| {
        let path = format!("{address}/settings/webhooks/{webhook}/deliveries/live");
        let stream = client_at(1).get(path).header("cookie", cookie).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        stream
    };
    let worker = world.admin().await;
    let cookie = worker.sign_in(TOKEN).await;
    let stream = live(worker.address(), &cookie).await;
    let other = live(worker.address(), &worker.sign_in(TOKEN).await).await;
    assert_eq!(worker.send_form(&cookie, "/sign-out", &[]).await.0, 303);
    stream.text().await.expect("the stream ends as it should");
    drop(other);

    world.set("admin.stream_max", "1s");
    let worker = world.admin().await;
    let cookie = worker.sign_in(TOKEN).await;
    live(worker.address(), &cookie).await.text().await.expect("the stream ends as it should");
    assert_eq!(live(worker.address(), &cookie).await.status(), 200, "the next stream begins");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_sessions_is_sealed_and_sessions_go_on() {
    let mut world = World::new().await;
    let (redis, name) = (world.redis.clone(), world.keys().session_key());
    let stored = async || {
        let text: String = redis::cmd("GET").arg(&name).query_async(&mut redis.clone()).await.unwrap();
        text
    };
    let plain = "0123456789abcdef".repeat(4);
    let () = redis::cmd("SET").arg(&name).arg(&plain).query_async(&mut redis.clone()).await.unwrap();
    world.set("secrets.keys", "");
    let without = world.admin().await;
    let cookie = without.sign_in(TOKEN).await;
    assert_eq!(stored().await, plain, "without a sealing key it stays as it is");
    drop(without);

    world.set("secrets.keys", SEALING_KEY);
    let server = world.admin().await;
    assert_eq!(server.page_as(&cookie, "/settings/webhooks").await.0, 200, "a plain key is read");
    let another = server.sign_in(TOKEN).await;
    let sealed = stored().await;
    assert!(sealed.starts_with(r#"{"key":"tests""#) && !sealed.contains(&plain), "{sealed}");
    assert_eq!(server.page_as(&cookie, "/settings/webhooks").await.0, 200);

    const NEW_KEY: &str = "new:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    world.set("secrets.keys", &format!("{NEW_KEY},{SEALING_KEY}"));
    let mut command = Command::new(PROGRAM);
    command.args(["secrets", "rotate"]).envs(world.environment());
    assert!(tokio::task::block_in_place(|| command.output().unwrap()).status.success());
    assert!(stored().await.starts_with(r#"{"key":"new""#));
    world.set("secrets.keys", NEW_KEY);
    let server = world.admin().await;
    assert_eq!(server.page_as(&another, "/settings/webhooks").await.0, 200, "the key is the same");

    world.set("secrets.keys", SEALING_KEY);
    let server = world.admin().await;
    assert_eq!(server.page_as(&another, "/settings/webhooks").await.0, 303, "it can't be opened");
    let new = server.sign_in(TOKEN).await;
    assert_eq!(server.page_as(&new, "/settings/webhooks").await.0, 200, "so the next sign-in replaces it");
}

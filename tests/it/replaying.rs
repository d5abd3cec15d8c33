//! Replays of dead letters, and rewinds: past events sent to a webhook that did not exist then.

use std::collections::{HashMap, HashSet};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use optio_webhooks::clock::now_ms;
use optio_webhooks::delivery::{DeadReason, Delivery, DeliveryId, FailureCode};
use optio_webhooks::detail::Detail;
use optio_webhooks::event::{EventType, sample};
use optio_webhooks::position::RecordPosition;
use optio_webhooks::record::{self, LastError, UnreadOrigin};
use optio_webhooks::replay::browse;
use optio_webhooks::replay::choice::Choice;
use optio_webhooks::replay::moment::Moment;
use optio_webhooks::replay::writer::BATCH_MAX;
use optio_webhooks::webhook::WebhookId;
use rdkafka::Message as _;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::FutureRecord;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::service::Service;
use crate::harness::worker::PROGRAM;
use crate::harness::world::header;
use crate::harness::{Reply, World, eventually};

/// Writes `count` dead letters, spread evenly over `webhooks`. Returns the delivery ids of each webhook.
async fn write_dead_letters(
    world: &World,
    webhooks: &[WebhookId],
    count: usize,
    reason: DeadReason,
) -> HashMap<WebhookId, HashSet<String>> {
    let (topic, partitions) = (world.names().dead_letters(), world.config().topics.partitions);
    let mut ids: HashMap<WebhookId, HashSet<String>> = HashMap::new();
    let mut sent = Vec::new();
    for number in 0..count {
        let webhook = webhooks[number % webhooks.len()];
        let delivery = dead_delivery(webhook, number);
        ids.entry(webhook).or_default().insert(delivery.id.to_string());
        let last = LastError { code: Some(FailureCode::Status), status: Some(500) };
        let headers =
            record::dead(record::headers(&delivery, None, last), reason, &Detail::new("after 4 attempts"), now_ms());
        let key = webhook.to_string();
        let record = FutureRecord::to(&topic).key(&key).payload(delivery.body.as_ref()).headers(headers);
        // Every partition gets dead letters of every webhook.
        let record = record.partition((number / webhooks.len()) as i32 % partitions);
        sent.push(world.producer().send_result(record).map_err(|(error, _)| error).unwrap());
        if sent.len() == 20_000 || number + 1 == count {
            for sent in sent.drain(..) {
                sent.await.unwrap().map_err(|(error, _)| error).unwrap();
            }
        }
    }
    ids
}

/// A delivery after its last attempt. `number` makes its task and its source offset different from others.
fn dead_delivery(webhook: WebhookId, number: usize) -> Delivery {
    let event_id = Uuid::now_v7().to_string();
    Delivery {
        id: DeliveryId::of(&event_id, webhook),
        webhook_id: webhook,
        event_type: EventType::TaskFailed,
        event_id: event_id.into(),
        task_id: format!("task-{number}").into(),
        body: br#"{"event":"task.failed"}"#.as_slice().into(),
        attempts: 4,
        deferrals: 2,
        first_seen_at_ms: now_ms(),
        source: RecordPosition { topic: Arc::from("events"), partition: 0, offset: number as i64 },
        replays: 0,
        traceparent: None,
        by_hand: false,
    }
}

fn run_replay(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("replay").args(arguments).envs(world.environment()).stdin(Stdio::null());
    tokio::task::block_in_place(|| command.output().unwrap())
}

/// Runs a replay that must succeed, and returns its summary.
fn replay(world: &World, arguments: &[&str]) -> Value {
    let output = run_replay(world, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A replay that runs in the background.
struct RunningReplay(Child);

impl RunningReplay {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("replay").args(arguments).envs(world.environment()).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }

    async fn exit(mut self) -> ExitStatus {
        eventually("the replay exits", async || self.0.try_wait().unwrap()).await
    }
}

impl Drop for RunningReplay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ten webhooks with 10,000 dead letters each, of which a replay selects three webhooks.
struct LargeReplay {
    world: World,
    /// The ids of the selected deliveries.
    selected: HashSet<String>,
    /// The selected webhooks, as `--webhook` expects them.
    filter: String,
}

impl LargeReplay {
    async fn new() -> Self {
        let world = World::new().await;
        let mut webhooks = Vec::new();
        for number in 0..10 {
            webhooks.push(world.webhook(&format!("/{number}"), &EventType::TASKS).await);
        }
        let ids = write_dead_letters(&world, &webhooks, 100_000, DeadReason::Exhausted).await;
        let three = &webhooks[..3];
        let selected = three.iter().flat_map(|webhook| ids[webhook].iter().cloned()).collect();
        let filter = three.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Self { world, selected, filter }
    }

    /// Interrupts three replays with `signal`, and runs a fourth one to its end.
    async fn replay_with_interruptions(&self, signal: &str) {
        // This rate is slow enough to interrupt each of them before its end.
        let arguments = ["--webhook", &self.filter, "--rate", "8000"];
        let topic = self.world.names().replays();
        for interruption in 1..=3 {
            let replay = RunningReplay::start(&self.world, &arguments);
            let enough = interruption * 6_000;
            eventually("a part is replayed", async || (self.world.count(&topic) >= enough).then_some(())).await;
            replay.signal(signal);
            assert!(!replay.exit().await.success(), "the replay ended before the signal");
        }
        assert!((self.world.count(&topic) as usize) < self.selected.len(), "nothing is left to replay");
        assert!(RunningReplay::start(&self.world, &arguments).exit().await.success());
        self.world.settled().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_interrupted_by_sigterm_delivers_each_dead_letter_exactly_once() {
    let large = LargeReplay::new().await;
    let mut worker = large.world.worker().await;
    large.replay_with_interruptions("-TERM").await;
    let deliveries = large.world.receiver.deliveries();
    assert_eq!(
        deliveries.keys().cloned().collect::<HashSet<_>>(),
        large.selected,
        "every selected delivery and no other"
    );
    assert!(deliveries.values().all(|times| *times == 1), "each arrives exactly once");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_interrupted_by_sigkill_repeats_at_most_one_batch() {
    let large = LargeReplay::new().await;
    let mut worker = large.world.worker().await;
    large.replay_with_interruptions("-KILL").await;
    let deliveries = large.world.receiver.deliveries();
    assert_eq!(
        deliveries.keys().cloned().collect::<HashSet<_>>(),
        large.selected,
        "every selected delivery and no other"
    );
    let repeats: usize = deliveries.values().map(|times| times - 1).sum();
    assert!(repeats <= 3 * BATCH_MAX as usize, "{repeats} deliveries are repeated");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_survives_a_broker_restart_and_writes_each_record_once() {
    let kafka = Service::kafka();
    let world = World::with(&[("kafka.brokers", &kafka.address)]).await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let ids = write_dead_letters(&world, &[webhook], 5_000, DeadReason::Exhausted).await;
    let mut worker = world.worker().await;
    let replay = RunningReplay::start(&world, &["--all", "--yes", "--rate", "1500"]);
    world.receiver.arrived(500).await;
    kafka.halt();
    worker.readiness(false).await;
    kafka.resume();
    assert!(replay.exit().await.success());
    let deliveries = world.receiver.delivered(5_000).await;
    assert_eq!(deliveries.keys().cloned().collect::<HashSet<_>>(), ids[&webhook]);
    world.settled().await;
    assert_eq!(world.count(&world.names().replays()), 5_000, "each record is written once");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_delivery_keeps_its_id_and_starts_at_attempt_one() {
    let world = World::new().await;
    let webhook = world.webhook("/", &[EventType::TaskFailed]).await;
    world.receiver.answer(|_| Reply::status(500));
    let mut worker = world.worker().await;
    world.emit(EventType::TaskFailed, 1).await;
    let first = world.dead_lettered(1).await.remove(0);
    let summary = replay(&world, &["--webhook", &webhook.to_string()]);
    assert_eq!(summary["replayed"], 1);
    assert_eq!(summary["byWebhookAndReason"][0]["reason"], "exhausted");
    let dead = world.dead_lettered(2).await;
    let again = dead.iter().find(|record| !header(record, "optio-replays").is_empty()).unwrap();
    assert_eq!(header(again, "optio-replays"), "1");
    assert_eq!(header(again, "optio-attempts"), "4");
    assert_eq!(header(again, "optio-delivery-id"), header(&first, "optio-delivery-id"));
    let requests = world.receiver.requests();
    assert_eq!(requests.iter().map(|request| request.attempt()).collect::<Vec<_>>(), [1, 2, 3, 4, 1, 2, 3, 4]);
    assert!(requests.iter().all(|request| request.delivery() == requests[0].delivery()));
    assert!(requests.iter().all(|request| request.body == requests[0].body));
    let log: Vec<u32> =
        world.logged(webhook).await.iter().map(|entry| entry["replays"].as_u64().unwrap() as u32).collect();
    assert_eq!(log, [0, 0, 0, 0, 1, 1, 1, 1]);

    // The second dead letter of the delivery is a new one. The first is replayed again only with `--again`.
    world.receiver.answer(|_| Reply::status(200));
    let summary = replay(&world, &["--all", "--yes"]);
    assert_eq!((&summary["replayed"], &summary["replayedBefore"]), (&1.into(), &1.into()));
    world.receiver.arrived(9).await;
    assert_eq!(replay(&world, &["--all", "--yes"])["replayed"], 0);
    assert_eq!(replay(&world, &["--all", "--yes", "--again"])["replayed"], 2);
    world.receiver.arrived(11).await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_dead_letters_and_a_dry_run_writes_nothing() {
    let world = World::new().await;
    let (one, other) = (world.webhook("/1", &EventType::TASKS).await, world.webhook("/2", &EventType::TASKS).await);
    let ids = write_dead_letters(&world, &[one, other], 20, DeadReason::Exhausted).await;
    let boundary = now_ms() + 1;
    eventually("the clock passes the boundary", async || (now_ms() > boundary).then_some(())).await;
    write_dead_letters(&world, &[one], 5, DeadReason::Expired).await;
    let boundary = optio_webhooks::clock::rfc3339(boundary);
    let id = ids[&other].iter().next().unwrap();
    for (arguments, count) in [
        (vec!["--all"], 25),
        (vec!["--webhook", &one.to_string()], 15),
        (vec!["--reason", "expired"], 5),
        (vec!["--reason", "expired,exhausted"], 25),
        (vec!["--event", "task.completed"], 0),
        (vec!["--event", "task.failed", "--reason", "expired"], 5),
        (vec!["--delivery", id], 1),
        (vec!["--since", &boundary], 5),
        (vec!["--until", &boundary], 20),
        (vec!["--limit", "7"], 7),
    ] {
        let summary = replay(&world, &[arguments.as_slice(), &["--dry-run"]].concat());
        assert_eq!(summary["replayed"], count, "{arguments:?}");
    }
    assert_eq!(world.count(&world.names().replays()), 0, "a dry run writes nothing");
    let output = run_replay(&world, &["--all", "--dry-run"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&one.to_string()) && text.contains("expired"), "{text}");
    assert!(text.contains("25 would be replayed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_missing_or_inactive_webhooks_are_not_replayed() {
    let world = World::new().await;
    let here = world.webhook("/", &EventType::TASKS).await;
    let mut paused = world.unsaved("/paused", &EventType::TASKS);
    paused.active = false;
    world.store().put(&paused).await.unwrap();
    let deleted = WebhookId(Uuid::now_v7());
    write_dead_letters(&world, &[here, paused.id, deleted], 30, DeadReason::Exhausted).await;
    let summary = replay(&world, &["--reason", "exhausted"]);
    assert_eq!(summary["replayed"], 10);
    assert_eq!(summary["webhookGone"][paused.id.to_string()], 10);
    assert_eq!(summary["webhookGone"][deleted.to_string()], 10);
    // They do not count as replayed, so they can be replayed once the webhook is active.
    paused.active = true;
    world.store().put(&paused).await.unwrap();
    assert_eq!(replay(&world, &["--reason", "exhausted"])["replayed"], 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replays_at_once_replay_each_dead_letter_once() {
    let world = World::new().await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    write_dead_letters(&world, &[webhook], 6_000, DeadReason::Exhausted).await;
    let arguments = ["--all", "--yes", "--rate", "6000"];
    let both = [RunningReplay::start(&world, &arguments), RunningReplay::start(&world, &arguments)];
    for replay in both {
        assert!(replay.exit().await.success());
    }
    assert_eq!(world.count(&world.names().replays()), 6_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_without_a_usable_filter_is_refused_with_a_hint() {
    let world = World::new().await;
    for (arguments, hint) in [
        (vec![], "--all --dry-run"),
        (vec!["--all"], "--yes"),
        (vec!["--since", "yesterday", "--limit", "1"], "how long ago"),
        (vec!["--reason", "bored"], "exhausted"),
        (vec!["--from-log", "--since", "1h"], "--webhook"),
        (vec!["--all", "--reason", "expired"], "cannot be used with"),
    ] {
        let output = run_replay(&world, &arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(hint), "{arguments:?}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_too_large_event_can_be_replayed_after_the_limit_is_raised() {
    let mut world = World::with(&[("delivery.payload_max", "1024")]).await;
    let webhook = world.webhook("/", &[EventType::TaskCompleted]).await;
    let mut transition = sample::transition(EventType::TaskCompleted, Uuid::now_v7(), &"x".repeat(2_000), now_ms());
    transition.as_object_mut().unwrap().remove("id");
    let mut strict = world.worker().await;
    world.write("task", Some(transition.to_string().as_bytes())).await;
    let dead = world.dead_lettered(1).await.remove(0);
    assert_eq!(header(&dead, "optio-dead-reason"), "too_large");
    assert!(strict.terminate().await.success());

    world.set("delivery.payload_max", "262144");
    let mut worker = world.worker().await;
    assert_eq!(replay(&world, &["--reason", "too_large"])["replayed"], 1);
    let request = world.receiver.arrived(1).await.remove(0);
    // An event without an id gets one from its position in the events topic. The replay keeps that position.
    let name = format!("{}/0/0", world.names().events());
    let event_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string();
    assert_eq!(request.delivery(), DeliveryId::of(&event_id, webhook).to_string());
    assert_eq!(request.attempt(), 1);
    assert_eq!(request.json()["taskId"], transition["taskId"]);
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_malformed_record_is_decoded_from_its_original_bytes() {
    let world = World::new().await;
    let webhook = world.webhook("/", &[EventType::TaskFailed]).await;
    // The dead letter is one of an older version that required an id in every transition.
    let value = br#"{"taskId":"t1","toState":"failed","task":{"title":"x"}}"#;
    let source = RecordPosition { topic: world.names().events().into(), partition: 3, offset: 17 };
    let origin = UnreadOrigin { source, timestamp_ms: 1_742_983_954_000, replays: 0 };
    let headers = record::dead(
        record::unread(OwnedHeaders::new(), &origin),
        DeadReason::Malformed,
        &Detail::new("missing field `id`"),
        now_ms(),
    );
    let topic = world.names().dead_letters();
    let record = FutureRecord::to(&topic).key("t1").payload(value.as_slice()).headers(headers);
    world.producer().send(record, Duration::from_secs(30)).await.map_err(|(error, _)| error).unwrap();
    let mut worker = world.worker().await;
    let arguments = ["--reason", "malformed"];
    assert_eq!(replay(&world, &arguments)["replayed"], 1);
    let request = world.receiver.arrived(1).await.remove(0);
    let event_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}/3/17", world.names().events()).as_bytes());
    assert_eq!(request.delivery(), DeliveryId::of(&event_id.to_string(), webhook).to_string());
    assert_eq!(
        request.json()["timestamp"],
        "2025-03-26T10:12:34.000Z",
        "the event has the timestamp of the original record"
    );
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_record_that_is_still_malformed_is_dead_lettered_unchanged() {
    let world = World::new().await;
    let mut worker = world.worker().await;
    world.write("k", Some(b"\xff not a transition")).await;
    world.dead_lettered(1).await;
    assert_eq!(replay(&world, &["--reason", "malformed"])["replayed"], 1);
    let dead = world.dead_lettered(2).await;
    let again = dead.iter().find(|record| !header(record, "optio-replays").is_empty()).unwrap();
    assert_eq!((again.key(), again.payload()), (Some(b"k".as_slice()), Some(b"\xff not a transition".as_slice())));
    assert_eq!(header(again, "optio-replays"), "1");
    assert_eq!(header(again, "optio-source-topic"), world.names().events());
    assert_eq!(header(again, "optio-replay-of"), "", "the headers of the replay are removed");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_sends_10_000_past_events_once_in_task_order() {
    let world = World::new().await;
    let events =
        [EventType::TaskPrOpened, EventType::TaskNeedsAttention, EventType::TaskFailed, EventType::TaskCompleted];
    let topic = world.names().events().to_owned();
    let mut by_task: HashMap<String, Vec<String>> = HashMap::new();
    let mut sent = Vec::new();
    let tasks: Vec<Uuid> = (0..2_500).map(|_| Uuid::now_v7()).collect();
    let began = now_ms();
    for event in events {
        for task in &tasks {
            let transition = sample::transition(event, *task, "x", now_ms());
            by_task.entry(task.to_string()).or_default().push(transition["id"].as_str().unwrap().to_owned());
            let (key, value) = (task.to_string(), transition.to_string());
            let record = FutureRecord::to(&topic).key(&key).payload(&value);
            sent.push(world.producer().send_result(record).map_err(|(error, _)| error).unwrap());
        }
    }
    for sent in sent {
        sent.await.unwrap().map_err(|(error, _)| error).unwrap();
    }
    let mut worker = world.worker().await;
    world.settled().await;
    let webhook = world.webhook("/", &EventType::TASKS).await;
    let (id, since) = (webhook.to_string(), optio_webhooks::clock::rfc3339(began));
    let arguments = ["--from-log", "--webhook", &id, "--since", &since];
    assert_eq!(replay(&world, &[arguments.as_slice(), &["--dry-run"]].concat())["replayed"], 10_000);
    assert_eq!(replay(&world, &arguments)["replayed"], 10_000);
    let deliveries = world.receiver.delivered(10_000).await;
    world.settled().await;
    assert!(deliveries.values().all(|times| *times == 1) && world.receiver.count() == 10_000, "each arrives once");
    let mut received: HashMap<String, Vec<String>> = HashMap::new();
    for request in world.receiver.requests() {
        received.entry(request.json()["taskId"].as_str().unwrap().to_owned()).or_default().push(request.delivery());
    }
    for (task, events) in by_task {
        let ids: Vec<String> = events.iter().map(|event| DeliveryId::of(event, webhook).to_string()).collect();
        assert_eq!(received[&task], ids, "the ids are those of a normal delivery, in the order of the events");
    }
    let again = replay(&world, &arguments);
    assert_eq!((&again["replayed"], &again["replayedBefore"]), (&0.into(), &10_000.into()));
    assert!(worker.terminate().await.success());
}

/// Reads all pages of the dead letters that `choice` selects, 7 per page. A page reads at most `look_at_max` offsets.
/// `between` runs between the pages.
async fn browse_all(
    world: &World,
    choice: &Choice,
    look_at_max: u64,
    between: impl AsyncFn(),
) -> Vec<browse::ListedDeadLetter> {
    let config = world.config();
    let (mut letters, mut cursor) = (Vec::new(), None);
    loop {
        let bounds =
            browse::Bounds { limit: 7, look_at_max, until: std::time::Instant::now() + Duration::from_secs(60) };
        let page = tokio::task::block_in_place(|| {
            browse::browse(&config, choice, cursor.take(), bounds, &CancellationToken::new()).unwrap()
        });
        assert!(page.dead_letters.len() <= 7);
        letters.extend(page.dead_letters);
        cursor = page.next;
        if cursor.is_none() {
            return letters;
        }
        between().await;
    }
}

fn ids_of(letters: &[browse::ListedDeadLetter]) -> Vec<String> {
    letters.iter().map(|letter| letter.delivery_id.unwrap().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_paged_newest_first_and_each_appears_once() {
    let world = World::new().await;
    // The filter selects one dead letter in a hundred, so a page needs many reads.
    let webhooks: Vec<WebhookId> = (0..100).map(|_| WebhookId(Uuid::now_v7())).collect();
    let ids = write_dead_letters(&world, &webhooks, 6_000, DeadReason::Exhausted).await;
    let one = webhooks[40];
    let choice = Choice { webhooks: vec![one], ..Choice::default() };
    for look_at_max in [300, 2_000, 100_000] {
        // Dead letters that are written in the meantime don't appear on later pages.
        let later = async || drop(write_dead_letters(&world, &webhooks[..1], 5, DeadReason::Expired).await);
        let letters = browse_all(&world, &choice, look_at_max, later).await;
        assert_eq!(letters.len(), 60, "with {look_at_max} offsets per page");
        assert_eq!(ids_of(&letters).into_iter().collect::<HashSet<_>>(), ids[&one]);
        assert!(letters.is_sorted_by(|younger, older| younger.died_at >= older.died_at), "newest first");
    }
    let all = browse_all(&world, &choice, 100_000, async || {}).await;
    let since_ms = all[20].died_at.parse::<Moment>().unwrap().0;
    let choice = Choice { since_ms: Some(since_ms), ..choice };
    let young = browse_all(&world, &choice, 100_000, async || {}).await;
    let expected: Vec<_> = all.iter().filter(|letter| letter.died_at >= all[20].died_at).cloned().collect();
    assert_eq!(ids_of(&young), ids_of(&expected));

    let found = |id: &str| {
        let (partition, offset) = id.split_once('/').unwrap();
        let (partition, offset) = (partition.parse().unwrap(), offset.parse().unwrap());
        let config = world.config();
        tokio::task::block_in_place(|| browse::one(&config, partition, offset, &CancellationToken::new()).unwrap())
    };
    for letter in [&all[0], &all[1], &all[59]] {
        assert_eq!(found(&letter.id).as_ref(), Some(letter));
    }
    assert_eq!((found("0/1000000"), found("99/0")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_reads_a_topic_with_fewer_partitions_than_readers() {
    let world = World::with(&[("topics.partitions", "1"), ("delivery.attempts_max", "1")]).await;
    let _worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    world.receiver.answer(|_| Reply::status(500));
    world.emit(EventType::TaskFailed, 3).await;
    world.dead_lettered(3).await;
    let counted = replay(&world, &["--webhook", &webhook.to_string(), "--since", "1h", "--dry-run"]);
    assert_eq!(counted["replayed"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_was_redelivered_is_not_replayed() {
    let world = World::with(&[("delivery.attempts_max", "1")]).await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    world.receiver.answer(|_| Reply::status(500));
    world.emit(EventType::TaskFailed, 2).await;
    world.dead_lettered(2).await;
    world.settled().await;
    world.receiver.answer(|_| Reply::status(200));
    let redelivered = world.receiver.requests()[0].delivery();
    let path = format!("/api/webhooks/{webhook}/deliveries/{redelivered}/redeliver");
    assert_eq!(worker.call("POST", &path, None).await.0, 202);
    world.receiver.arrived(3).await;
    let summary = replay(&world, &["--all", "--yes"]);
    assert_eq!((&summary["replayed"], &summary["replayedBefore"]), (&1.into(), &1.into()));
    let last = world.receiver.arrived(4).await.remove(3);
    assert_ne!(last.delivery(), redelivered);
}

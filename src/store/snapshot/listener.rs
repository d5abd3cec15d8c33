//! Hears that something changed. That only makes a change seen sooner: one that isn't announced is seen by the next
//! confirmation.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{Notify, watch};

use crate::schedule::Reconnect;

/// Listens on `channel` until the receiver is gone; begins anew when `anew` is notified, because a connection that died
/// without FIN is silent like one on which nothing is said.
pub(super) fn spawn(
    client: redis::Client,
    channel: String,
    timeout: Duration,
    anew: Arc<Notify>,
) -> watch::Receiver<()> {
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        let mut reconnect = Reconnect::default();
        while !sender.is_closed() {
            if let Some(mut listening) = listen(&client, &channel, timeout).await {
                reconnect = Reconnect::default();
                let mut messages = listening.on_message();
                loop {
                    tokio::select! {
                        message = messages.next() => if message.is_none() { break },
                        () = anew.notified() => break,
                        () = sender.closed() => return,
                    }
                    let _ = sender.send(());
                }
            }
            reconnect.wait().await;
        }
    });
    receiver
}

async fn listen(client: &redis::Client, channel: &str, timeout: Duration) -> Option<redis::aio::PubSub> {
    let opened = tokio::time::timeout(timeout, async {
        let mut listening = client.get_async_pubsub().await?;
        listening.subscribe(channel).await?;
        redis::RedisResult::Ok(listening)
    });
    match opened.await {
        Ok(Ok(listening)) => Some(listening),
        Ok(Err(error)) => {
            tracing::debug!(%error, "changes of webhooks aren't heard of, and seen a moment later");
            None
        }
        Err(_) => None,
    }
}

//! The listener for announced changes of the webhooks. It only makes workers see a change sooner: the next confirmation
//! sees every change.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{Notify, watch};

use crate::schedule::Reconnect;
use crate::store::connection::Connection;

/// Listens on `channel` until the receiver is dropped. Opens a new connection when `renew` is notified, because a
/// connection that died without FIN looks like one without messages.
pub(super) fn spawn(
    connection: Connection,
    channel: String,
    timeout: Duration,
    renew: Arc<Notify>,
) -> watch::Receiver<()> {
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        let mut reconnect = Reconnect::default();
        while !sender.is_closed() {
            if let Some(mut listening) = listen(&connection, &channel, timeout).await {
                reconnect = Reconnect::default();
                let mut messages = listening.on_message();
                loop {
                    tokio::select! {
                        message = messages.next() => if message.is_none() { break },
                        () = renew.notified() => break,
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

async fn listen(connection: &Connection, channel: &str, timeout: Duration) -> Option<redis::aio::PubSub> {
    match tokio::time::timeout(timeout, connection.subscribe(channel)).await {
        Ok(Ok(listening)) => Some(listening),
        Ok(Err(error)) => {
            tracing::debug!(%error, "cannot listen for changes of webhooks; they are seen at the next confirmation");
            None
        }
        Err(_) => None,
    }
}

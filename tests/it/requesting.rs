//! Tests of the HTTP client over real sockets, against endpoints that misbehave.

mod certificates;
mod connections;
mod dialling;
mod forbidden;
mod leniency;
mod naming;
mod showing;

use bytes::Bytes;
use optio_webhooks::config::{Config, DeliverySettings};
use optio_webhooks::http::client::{self, Client};
use optio_webhooks::http::failure::SendError;
use optio_webhooks::http::names::Names;

/// The default settings, except that plain HTTP and loopback addresses are allowed.
fn settings(change: impl FnOnce(&mut DeliverySettings)) -> DeliverySettings {
    let mut delivery = Config::built_in().delivery;
    delivery.allow_http = true;
    delivery.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
    change(&mut delivery);
    delivery
}

fn client(delivery: &DeliverySettings) -> Client {
    client_trusting(delivery, rustls::RootCertStore::empty())
}

/// A client that trusts only certificates of `roots`.
fn client_trusting(delivery: &DeliverySettings, roots: rustls::RootCertStore) -> Client {
    Client::with(delivery, roots, Names::system(client::limits(delivery))).unwrap()
}

/// Posts `{}` to `url`, and returns status and body of the answer.
async fn post(client: &Client, url: &str) -> Result<(u16, String), SendError> {
    let url = url.parse().unwrap();
    let answer = client.post(&url, hyper::HeaderMap::new, Bytes::from_static(b"{}")).await?;
    let status = answer.status().as_u16();
    let (body, whole) = answer.body(65_536).await;
    whole.map(|()| (status, String::from_utf8_lossy(&body).into_owned()))
}

//! The scripted endpoints.

use std::time::Duration;

use hyper::HeaderMap;

use super::outside::{Request, World};
use crate::clock::now_ms;
use crate::delivery::FailureCode;
use crate::http::client::scripted::Script;
use crate::http::failure::SendError;

/// Ends a request, also if it is cut off.
struct InFlight {
    world: World,
    path: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.world.with(|outside| {
            if let Some(count) = outside.in_flight.get_mut(&self.path) {
                *count = count.saturating_sub(1);
            }
        });
    }
}

/// The script of the endpoints.
pub fn script(world: &World) -> Script {
    let world = world.clone();
    std::sync::Arc::new(move |url, headers| {
        let (world, path) = (world.clone(), url.path().to_owned());
        let (delivery, attempt) = (text(headers, "x-optio-delivery"), text(headers, "x-optio-attempt"));
        Box::pin(async move { answer(&world, path, delivery, attempt.parse().expect("it is a number")).await })
    })
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers[name].to_str().expect("it is text").to_owned()
}

async fn answer(world: &World, path: String, delivery: String, attempt: u32) -> Result<u16, SendError> {
    let (is_slow, fails) = match path.as_str() {
        "/good" => (world.happens(2), world.happens(1)),
        "/flaky" => (world.happens(5), world.happens(40)),
        "/slow" => (world.happens(40), world.happens(5)),
        _ => (world.happens(10), true),
    };
    let status = match (fails, world.happens(20)) {
        (false, _) => 200,
        (true, true) => 429,
        (true, false) => 503,
    };
    let breaks = fails && world.happens(20);
    world.with(|outside| {
        let max = outside.config.delivery.endpoint_in_flight_max;
        let count = outside.in_flight.entry(path.clone()).or_default();
        *count += 1;
        if *count > max {
            let broken = format!("{count} requests to {path} at once, and {max} are allowed");
            outside.broken.push(broken);
        }
        let all: usize = outside.in_flight.values().sum();
        if all > outside.config.worker.in_flight_max {
            outside.broken.push(format!("{all} requests at once"));
        }
        outside.trace.push(format!("{} {path} {delivery} {attempt} {status}", now_ms()));
        let request = Request { attempt, at_ms: now_ms(), accepted: !fails };
        outside.requests.entry(delivery).or_default().push(request);
    });
    let _in_flight = InFlight { world: world.clone(), path };
    // An endpoint that accepts answers in time. One that fails may answer after the worker has given it up.
    let longest = match (is_slow, fails) {
        (false, _) => Duration::from_millis(50),
        (true, false) => Duration::from_millis(1_900),
        (true, true) => Duration::from_secs(4),
    };
    world.pause(longest).await;
    if breaks {
        return Err(SendError::new(FailureCode::Connect, "waiting for an answer", "the connection broke"));
    }
    Ok(status)
}

//! Closes clients that nobody waits for.

/// Drops a Kafka client on a separate thread, because closing waits for its threads and has no result.
pub fn close<T: Send + 'static>(client: T) {
    // If no thread can be created, the closure is dropped here, and with it the client.
    let _ = std::thread::Builder::new().name("closing".to_owned()).spawn(move || drop(client));
}

//! Closes clients that nobody waits for.

/// A Kafka client that is closed on a separate thread, because closing waits for the client's threads and has no result.
pub struct ClosedInBackground<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> ClosedInBackground<T> {
    /// Takes a client.
    pub fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> std::ops::Deref for ClosedInBackground<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("only drop takes the client")
    }
}

impl<T: Send + 'static> Drop for ClosedInBackground<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        // If no thread can be created, the closure is dropped here, and with it the client.
        let _ = std::thread::Builder::new().name("closing".to_owned()).spawn(move || drop(client));
    }
}

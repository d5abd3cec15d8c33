//! A consumer whose end nobody waits for.

use rdkafka::consumer::BaseConsumer;

use crate::kafka::closing::close;
use crate::kafka::logging::Logging;

/// A consumer that is closed on a separate thread, because closing takes a tenth of a second or more and has no result.
pub(super) struct ClosedInBackground(pub(super) Option<BaseConsumer<Logging>>);

impl std::ops::Deref for ClosedInBackground {
    type Target = BaseConsumer<Logging>;
    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("only drop takes the consumer")
    }
}

impl Drop for ClosedInBackground {
    fn drop(&mut self) {
        close(self.0.take());
    }
}

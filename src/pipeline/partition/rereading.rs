//! Reads the last record again after a pause, to see whether the log is still the same.
//!
//! A topic that was deleted and created again may have grown past the position of a paused partition by the time it is
//! resumed. The client would go on at that position, and skip every record below it.

use super::{Partition, State};

/// The record that was read last, and whether it is read again.
#[derive(Debug, Default)]
pub(super) struct Rereading {
    /// The offset and the timestamp of the record that was read last.
    last: Option<(i64, i64)>,
    /// Whether the next record should be this one.
    is_expected: bool,
    /// Whether the log is another one, which has to be read from its beginning.
    begins_anew: bool,
}

/// What a record that was read says about its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing: it is a further record, or the last one was deleted meanwhile.
    Nothing,
    /// It is the record that was read last, so the log is the same.
    Same,
    /// Another record has the offset of the last one, so the log is another one.
    Another,
}

impl Rereading {
    /// The offset of the record that is to be read again; `None` before the first record.
    pub(super) fn expect(&mut self) -> Option<i64> {
        self.is_expected = self.last.is_some();
        self.last.map(|(offset, _)| offset)
    }

    /// Notes a record that was read.
    pub(super) fn read(&mut self, offset: i64, timestamp_ms: i64) -> Says {
        let last = self.last.replace((offset, timestamp_ms));
        if !std::mem::take(&mut self.is_expected) {
            return Says::Nothing;
        }
        match last {
            Some((at, written_ms)) if at == offset && written_ms == timestamp_ms => Says::Same,
            Some((at, _)) if at == offset => {
                self.begins_anew = true;
                Says::Another
            }
            _ => Says::Nothing,
        }
    }

    /// Whether the log has to be read from its beginning.
    pub(super) fn begins_anew(&self) -> bool {
        self.begins_anew
    }
}

impl State {
    /// Notes a record that was read. Returns false if nothing may be done with it: it was read before, or the log has to
    /// be read from its beginning first.
    pub(super) fn is_further(&mut self, offset: i64, timestamp_ms: i64) -> bool {
        if self.rereading.begins_anew() {
            return false;
        }
        self.rereading.read(offset, timestamp_ms) == Says::Nothing
    }
}

impl Partition {
    /// The offset of the record that was read last. It is read again, to see whether the log is still the same.
    pub fn reread(&self) -> Option<i64> {
        self.state().rereading.expect()
    }

    /// Whether the log is another one. Nothing is read and nothing is committed until [`Partition::begin_anew`].
    pub fn begins_anew(&self) -> bool {
        self.state().rereading.begins_anew()
    }

    /// Forgets the records of the old log. The new one is read from its oldest record, at `oldest`, and the commit goes
    /// back there as well.
    pub fn begin_anew(&self, oldest: i64) {
        let mut state = self.state();
        state.go_back(oldest);
        state.rereading = Rereading::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_record_at_the_same_offset_shows_another_log() {
        let mut rereading = Rereading::default();
        assert_eq!((rereading.expect(), rereading.read(7, 70)), (None, Says::Nothing));
        assert_eq!((rereading.expect(), rereading.read(7, 70)), (Some(7), Says::Same));
        assert_eq!(rereading.read(8, 80), Says::Nothing);
        assert_eq!((rereading.expect(), rereading.read(9, 90)), (Some(8), Says::Nothing), "8 was deleted");
        assert_eq!((rereading.expect(), rereading.read(0, 95)), (Some(9), Says::Nothing), "the log has gone back");
        assert!(!rereading.begins_anew());
        assert_eq!((rereading.expect(), rereading.read(0, 96)), (Some(0), Says::Another));
        assert!(rereading.begins_anew());
    }
}

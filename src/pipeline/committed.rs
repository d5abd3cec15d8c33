//! What a committed offset says of the earlier owners of a partition.

use rdkafka::Offset;

use crate::offsets::commit_note::{self, CommitNote};

/// The facts about predecessors that follow from a partition's committed offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The note in the commit's metadata.
    pub note: Option<CommitNote>,
    /// Whether the commit doesn't come from a worker. Marks of offsets at or above it are then void.
    pub marks_are_void: bool,
}

impl Committed {
    /// The facts about predecessors that follow from a committed offset and its metadata.
    #[must_use]
    pub fn read(offset: Option<Offset>, metadata: &str) -> Self {
        match offset {
            // A commit of a worker always has a note.
            Some(Offset::Offset(offset)) => {
                let note = commit_note::decode(metadata, offset);
                Committed { marks_are_void: note.is_none(), note }
            }
            // The offset was never committed or was lost, or the topic was created again.
            Some(_) => Committed { note: None, marks_are_void: true },
            // The offset can't be read now. The marks are used without a note.
            None => Committed { note: None, marks_are_void: false },
        }
    }
}

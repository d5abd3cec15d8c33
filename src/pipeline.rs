//! The stages joined: consume, decode, match, wait, send, hand off, settle, commit.

pub mod commit_note;
pub mod lane;
pub mod offsets;
pub mod window;

//! The values of labels that no other module defines.

/// Why a connection to the admin server was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionClosed {
    /// It kept the server waiting, and a new connection needed its place.
    Evicted,
    /// It was new, and all others were being answered.
    Refused,
    /// Its request took too long to arrive, or its client did not take the answer.
    TooSlow,
}

impl ConnectionClosed {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Evicted, Self::Refused, Self::TooSlow];

    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Refused => "refused",
            Self::TooSlow => "too_slow",
        }
    }
}

/// The permit pools, as metrics name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// All open deliveries.
    All,
    /// Retries.
    Retry,
    /// Events for very many webhooks.
    Wide,
    /// Large payloads.
    Large,
}

impl Pool {
    /// All pools.
    pub const ALL: [Self; 4] = [Self::All, Self::Retry, Self::Wide, Self::Large];

    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Retry => "retry",
            Self::Wide => "wide",
            Self::Large => "large",
        }
    }
}

/// Why the name of an endpoint's host gave no address that may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameFailure {
    /// It has an address that is forbidden.
    Forbidden,
    /// It has no address.
    Unknown,
    /// No name server answered in time.
    NoAnswer,
    /// The lookup failed.
    Failed,
}

impl NameFailure {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Forbidden, Self::Unknown, Self::NoAnswer, Self::Failed];

    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Unknown => "unknown",
            Self::NoAnswer => "no_answer",
            Self::Failed => "failed",
        }
    }
}

/// What a rebalance did with partitions of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance {
    /// Partitions were assigned.
    Assigned,
    /// Partitions were drained, committed and given back.
    Revoked,
    /// Partitions went to another member without a commit of this one.
    Lost,
}

impl Rebalance {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Assigned, Self::Revoked, Self::Lost];

    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Revoked => "revoked",
            Self::Lost => "lost",
        }
    }
}

/// Why a partition is not read for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseReason {
    /// The pipeline has no room for more records.
    PipelineFull,
    /// The read-ahead of a retry tier is full.
    WindowFull,
    /// The partition has `kafka.open_offsets_max` open offsets.
    OpenOffsets,
}

impl PauseReason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::PipelineFull, Self::WindowFull, Self::OpenOffsets];

    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PipelineFull => "pipeline_full",
            Self::WindowFull => "window_full",
            Self::OpenOffsets => "open_offsets",
        }
    }
}

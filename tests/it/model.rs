//! Exhaustive models: every order in which things can happen, within bounds.
//!
//! [`Partition`] has one partition with a few records, two workers, Kafka's committed offset and the marks in Redis. The
//! offsets and the commit notes are those of the program ([`OpenOffsets`], [`commit_note`]); what surrounds them is modelled.
//! `MODEL_RECORDS=3 MODEL_TROUBLES=3` checks more.
//!
//! [`Replays`] has dead letters and runs of a replay that crash.

use std::collections::BTreeSet;

use optio_webhooks::offsets::OpenOffsets;
use optio_webhooks::offsets::commit_note::{self, CommitNote};
use optio_webhooks::position::{Offset, TimestampMs};
use stateright::{Checker as _, Model, Property};

/// A partition with this many records, and this many crashes, losses of the partition and losses of marks.
struct Partition {
    records: i64,
    troubles: u8,
}

/// How far a worker is with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    /// The request or the hand-off is on its way.
    Started,
    /// The endpoint accepted it, or the broker stored the hand-off. The worker doesn't know yet.
    Durable,
    /// Redis has the mark.
    Marked,
}

/// One worker for as long as it believes that it owns the partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owner {
    epoch: u8,
    offsets: OpenOffsets,
    next: i64,
    note: Option<CommitNote>,
    marks: BTreeSet<i64>,
    stages: Vec<(i64, Stage)>,
    /// The last commit that it sent.
    sent: Option<(i64, String)>,
}

/// A commit on its way to the broker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Commit {
    epoch: u8,
    offset: i64,
    note: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    committed: (i64, String),
    /// The epoch of the last assignment. The broker takes commits of this epoch only.
    epoch: u8,
    owners: [Option<Owner>; 2],
    marks: BTreeSet<i64>,
    /// Commits that the broker has not got yet, in no order.
    network: BTreeSet<Commit>,
    /// How often each record had its effect.
    effects: Vec<u8>,
    troubles: u8,
    /// The records that were in flight, or above a lost mark, when something went wrong: each may be repeated once for each
    /// time.
    excused: Vec<u8>,
    /// A record was skipped that had no effect.
    skipped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Action {
    /// The group gives the partition to a worker. One that had it before doesn't know yet.
    Assign(usize),
    /// A worker reads the next record.
    Read(usize),
    /// A record goes one stage further.
    Advance(usize, i64),
    /// A worker sends its watermark.
    Commit(usize),
    /// The broker gets a commit.
    Arrives(Commit),
    /// The marks below the broker's commit are trimmed.
    Trim,
    /// A worker whose work is done gives the partition up, after its last commit.
    HandOver(usize),
    /// A worker gives the partition up, or dies, with work in flight.
    Lose(usize),
    /// Redis loses the marks.
    LoseMarks,
}

impl State {
    fn owner(&self, worker: usize) -> &Owner {
        self.owners[worker].as_ref().expect("the action is enabled")
    }

    /// What is in flight at a worker may be repeated.
    fn excuse(&mut self, worker: usize) {
        let owner = self.owners[worker].as_ref().expect("the action is enabled");
        for (offset, _) in &owner.stages {
            self.excused[*offset as usize] += 1;
        }
    }
}

impl Owner {
    fn is_idle(&self) -> bool {
        self.stages.is_empty() && self.offsets.watermark() == self.sent.as_ref().map(|(offset, _)| *offset)
    }
}

impl Model for Partition {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            committed: (0, String::new()),
            epoch: 0,
            owners: [None, None],
            marks: BTreeSet::new(),
            network: BTreeSet::new(),
            effects: vec![0; self.records as usize],
            troubles: 0,
            excused: vec![0; self.records as usize],
            skipped: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let has_trouble_left = state.troubles < self.troubles;
        let owned = state.owners.iter().flatten().any(|owner| owner.epoch == state.epoch);
        for worker in 0..state.owners.len() {
            let Some(owner) = &state.owners[worker] else {
                // To take the partition from a live owner is a trouble; to give it to somebody is not.
                if !owned || has_trouble_left {
                    actions.push(Action::Assign(worker));
                }
                continue;
            };
            if owner.next < self.records {
                actions.push(Action::Read(worker));
            }
            actions.extend(owner.stages.iter().map(|(offset, _)| Action::Advance(worker, *offset)));
            let commit = owner.offsets.commit().map(|commit| (commit.offset, commit_note::encode(&commit)));
            // A worker waits for the answer before it sends the next commit. A commit of one that lost the partition is
            // refused, so only those that were on their way matter.
            let is_arrived = !state.network.iter().any(|commit| commit.epoch == owner.epoch);
            if is_arrived && owner.epoch == state.epoch && commit.is_some() && commit != owner.sent {
                actions.push(Action::Commit(worker));
            }
            if owner.is_idle() && is_arrived && owner.next == self.records {
                // Everything is done; a further hand-over would only repeat the same states.
                continue;
            }
            if owner.is_idle() && is_arrived && has_trouble_left {
                actions.push(Action::HandOver(worker));
            }
            if has_trouble_left {
                actions.push(Action::Lose(worker));
            }
        }
        actions.extend(state.network.iter().cloned().map(Action::Arrives));
        if state.marks.iter().any(|mark| *mark < state.committed.0) {
            actions.push(Action::Trim);
        }
        if has_trouble_left && !state.marks.is_empty() {
            actions.push(Action::LoseMarks);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Assign(worker) => {
                let taken = (0..state.owners.len())
                    .find(|one| state.owners[*one].as_ref().is_some_and(|owner| owner.epoch == state.epoch));
                if let Some(other) = taken {
                    state.troubles += 1;
                    state.excuse(other);
                }
                state.epoch += 1;
                let (offset, metadata) = state.committed.clone();
                let note = commit_note::decode(&metadata, offset);
                let mut offsets = OpenOffsets::default();
                offsets.begin(offset);
                state.owners[worker] = Some(Owner {
                    epoch: state.epoch,
                    offsets,
                    next: offset,
                    note,
                    marks: state.marks.clone(),
                    stages: Vec::new(),
                    sent: None,
                });
            }
            Action::Read(worker) => {
                let owner = state.owners[worker].as_mut()?;
                let offset = owner.next;
                owner.next += 1;
                let noted = owner.note.as_ref().is_some_and(|note| note.is_settled(offset));
                if !owner.offsets.open(Offset(offset), TimestampMs(offset)) {
                    return None;
                }
                if noted || owner.marks.contains(&offset) {
                    owner.offsets.settle(offset);
                    state.skipped |= state.effects[offset as usize] == 0;
                } else {
                    owner.stages.push((offset, Stage::Started));
                    // What a zombie reads is beside the owner's own work.
                    if state.owner(worker).epoch != state.epoch {
                        state.excused[offset as usize] += 1;
                    }
                }
            }
            Action::Advance(worker, offset) => {
                let owner = state.owners[worker].as_mut()?;
                let at = owner.stages.iter().position(|(one, _)| *one == offset)?;
                match owner.stages[at].1 {
                    Stage::Started => {
                        owner.stages[at].1 = Stage::Durable;
                        state.effects[offset as usize] += 1;
                    }
                    Stage::Durable => {
                        owner.stages[at].1 = Stage::Marked;
                        state.marks.insert(offset);
                    }
                    Stage::Marked => {
                        owner.stages.remove(at);
                        owner.offsets.settle(offset);
                    }
                }
            }
            Action::Commit(worker) => {
                let owner = state.owners[worker].as_mut()?;
                let commit = owner.offsets.commit()?;
                let (offset, note) = (commit.offset, commit_note::encode(&commit));
                owner.sent = Some((offset, note.clone()));
                state.network.insert(Commit { epoch: owner.epoch, offset, note });
            }
            Action::Arrives(commit) => {
                state.network.remove(&commit);
                if commit.epoch == state.epoch {
                    state.committed = (commit.offset, commit.note);
                }
            }
            Action::Trim => state.marks = state.marks.split_off(&state.committed.0),
            Action::HandOver(worker) => {
                state.troubles += 1;
                state.owners[worker] = None;
            }
            Action::Lose(worker) => {
                state.troubles += 1;
                state.excuse(worker);
                state.owners[worker] = None;
            }
            Action::LoseMarks => {
                state.troubles += 1;
                // A worker that is lost later repeats what only the marks knew.
                for mark in std::mem::take(&mut state.marks) {
                    state.excused[mark as usize] += 1;
                }
            }
        }
        // Which worker is which makes no difference, and a worker that lost the partition and has nothing to do is gone.
        let (epoch, records) = (state.epoch, self.records);
        for owner in &mut state.owners {
            owner.take_if(|owner| owner.epoch != epoch && owner.stages.is_empty() && owner.next == records);
        }
        state.owners.sort_by_key(|owner| std::cmp::Reverse(owner.as_ref().map(|owner| owner.epoch)));
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a commit never passes a record without its effect", |_, state: &State| {
                state
                    .effects
                    .iter()
                    .position(|effects| *effects == 0)
                    .is_none_or(|open| state.committed.0 <= open as i64)
            }),
            Property::always("a note lists no record without its effect", |model, state: &State| {
                let (offset, note) = &state.committed;
                let note = commit_note::decode(note, *offset);
                let noted = |offset: i64| note.as_ref().is_some_and(|note| note.is_settled(offset));
                (0..model.records).all(|offset| !noted(offset) || state.effects[offset as usize] > 0)
            }),
            Property::always("no record is skipped that had no effect", |_, state: &State| !state.skipped),
            Property::always("only what was in flight or had lost its mark is repeated", |_, state: &State| {
                state.effects.iter().zip(&state.excused).all(|(effects, excused)| *effects <= 1 + excused)
            }),
            Property::eventually("every record has its effect", |_, state: &State| {
                state.effects.iter().all(|effects| *effects > 0)
            }),
            Property::sometimes("everything is committed", |model, state: &State| state.committed.0 == model.records),
            Property::sometimes("something is repeated", |_, state: &State| {
                state.effects.iter().any(|effects| *effects > 1)
            }),
            Property::sometimes("a note saves a repetition", |_, state: &State| {
                let (offset, note) = &state.committed;
                commit_note::decode(note, *offset).is_some_and(|note| !note.settled.is_empty())
            }),
        ]
    }
}

fn number(name: &str, default: u8) -> u8 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[test]
fn no_order_of_events_commits_past_an_open_record_or_skips_one() {
    let (records, troubles) = (number("MODEL_RECORDS", 2), number("MODEL_TROUBLES", 2));
    let model = Partition { records: records.into(), troubles };
    let checked = model.checker().threads(2).spawn_bfs().join();
    println!("{records} records, {troubles} troubles: {} states", checked.unique_state_count());
    checked.assert_properties();
}

/// Dead letters that are replayed by runs of which some crash.
struct Replays {
    letters: usize,
    crashes: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Replaying {
    /// How often the topic of replays has each letter. A record there is the mark of its letter as well.
    replayed: Vec<u8>,
    run: Option<Run>,
    crashes: u8,
    done: bool,
}

/// One run: it reads the marks first, then the letters in their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Run {
    marks: Vec<bool>,
    next: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Next,
    Crash,
}

impl Model for Replays {
    type State = Replaying;
    type Action = Step;

    fn init_states(&self) -> Vec<Replaying> {
        vec![Replaying { replayed: vec![0; self.letters], run: None, crashes: 0, done: false }]
    }

    fn actions(&self, state: &Replaying, steps: &mut Vec<Step>) {
        match &state.run {
            None if !state.done => steps.push(Step::Begin),
            None => {}
            Some(_) => {
                steps.push(Step::Next);
                if state.crashes < self.crashes {
                    steps.push(Step::Crash);
                }
            }
        }
    }

    fn next_state(&self, last: &Replaying, step: Step) -> Option<Replaying> {
        let mut state = last.clone();
        match step {
            Step::Begin => {
                let marks = state.replayed.iter().map(|times| *times > 0).collect();
                state.run = Some(Run { marks, next: 0 });
            }
            Step::Next => {
                let run = state.run.as_mut()?;
                if run.next == self.letters {
                    (state.run, state.done) = (None, true);
                } else {
                    if !run.marks[run.next] {
                        state.replayed[run.next] += 1;
                    }
                    run.next += 1;
                }
            }
            Step::Crash => (state.run, state.crashes) = (None, state.crashes + 1),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no letter is replayed twice", |_, state: &Replaying| {
                state.replayed.iter().all(|times| *times <= 1)
            }),
            Property::always("a run that ends has replayed every letter", |_, state: &Replaying| {
                !state.done || state.replayed.iter().all(|times| *times == 1)
            }),
            Property::eventually("a run ends", |_, state: &Replaying| state.done),
        ]
    }
}

#[test]
fn no_crash_makes_a_replay_lose_or_repeat_a_letter() {
    let checked = Replays { letters: 4, crashes: 3 }.checker().spawn_bfs().join();
    checked.assert_properties();
}

//! Tests of the whole program against a real Kafka and a real Redis. `make test` starts both.

mod harness;

mod addresses;
mod administering;
mod browsing;
mod command_line;
mod consuming;
mod crashing;
mod delivering;
mod deploying;
mod guarding;
mod hostile;
mod isolating;
mod kafka_half_there;
mod kafka_secured;
mod layout;
mod monitoring;
mod outages;
mod people;
mod permissions;
mod producing;
mod records;
mod redis_half_there;
mod redis_secured;
mod remembering;
mod replaying;
mod requesting;
mod retrying;
mod saving;
mod scripts;
mod sealing;
mod signing;
mod snippets;
mod sweeping;
mod terminal;
mod waiting;

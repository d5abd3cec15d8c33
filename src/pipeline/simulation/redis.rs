//! The scripted Redis: it knows the script that settles, and the streams of marks. It refuses everything else, which the
//! worker must bear.

use std::io;
use std::time::Duration;

use redis::{Arg, Cmd, ErrorKind, RedisError, RedisResult, Value};

use super::outside::{Outside, World};
use crate::store::connection::scripted::Script;

/// The script of Redis.
pub fn script(world: &World) -> Script {
    let world = world.clone();
    std::sync::Arc::new(move |command| {
        let (world, words) = (world.clone(), words(command));
        Box::pin(async move { answer(&world, &words).await })
    })
}

fn words(command: &Cmd) -> Vec<Vec<u8>> {
    let word = |arg: Arg<&[u8]>| match arg {
        Arg::Simple(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    };
    command.args_iter().map(word).collect()
}

async fn answer(world: &World, words: &[Vec<u8>]) -> RedisResult<Value> {
    let away = || RedisError::from(io::Error::from(io::ErrorKind::ConnectionReset));
    world.pause(Duration::from_millis(5)).await;
    if world.happens(3) {
        return Err(away());
    }
    let done = world.with(|outside| carried_out(outside, words));
    world.pause(Duration::from_millis(5)).await;
    // The connection breaks after the command was carried out.
    if world.happens(3) { Err(away()) } else { done }
}

fn carried_out(outside: &mut Outside, words: &[Vec<u8>]) -> RedisResult<Value> {
    let word = |at: usize| words.get(at).map(Vec::as_slice).unwrap_or_default();
    match word(0) {
        // The script that settles has one key, which says to a cluster where it belongs. One forbidden key doesn't fail all.
        b"EVALSHA" if word(2) == b"1" => Ok(settle(outside, &words[4..])),
        b"XRANGE" => Ok(stream(outside.marks.get(word(1)), word(2), number(word(5)) as usize)),
        b"DEL" => {
            outside.marks.remove(word(1));
            Ok(Value::Int(1))
        }
        b"XTRIM" | b"XDEL" => {
            let is_trim = word(0) == b"XTRIM";
            let id = number(word(words.len() - 1));
            if let Some(entries) = outside.marks.get_mut(word(1)) {
                entries.retain(|(entry, _)| if is_trim { *entry >= id } else { *entry != id });
            }
            Ok(Value::Int(1))
        }
        b"ZRANGEBYSCORE" => Ok(Value::Array(Vec::new())),
        _ => Err(RedisError::from((ErrorKind::UnexpectedReturnType, "the simulated Redis does not know this command"))),
    }
}

/// The number that a word begins with, such as an entry's id.
fn number(word: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(word);
    text.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A page of `max` entries, from `-` or after `(id`.
fn stream(entries: Option<&Vec<(u64, Vec<u8>)>>, from: &[u8], max: usize) -> Value {
    let after = from.strip_prefix(b"(").map_or(0, number);
    let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
    let entry = |(id, marks): &(u64, Vec<u8>)| {
        let fields = Value::Array(vec![bulk(b"m"), bulk(marks)]);
        Value::Array(vec![bulk(format!("{id}-0").as_bytes()), fields])
    };
    let page = entries.into_iter().flatten().filter(|(id, _)| *id > after).take(max);
    Value::Array(page.map(entry).collect())
}

/// Carries out the script of `store/settled/script.rs`, as far as the marks.
fn settle(outside: &mut Outside, words: &[Vec<u8>]) -> Value {
    let count = |at: usize| number(&words[at]) as usize;
    let (lines, marks, died, missed) = (count(9), count(10), count(12), count(15));
    let mut at = 19 + lines * 6 + died * 2 + missed * 7;
    let mut ids = Vec::new();
    for _ in 0..marks {
        outside.next_mark += 1;
        let id = outside.next_mark;
        outside.marks.entry(words[at].clone()).or_default().push((id, words[at + 1].clone()));
        ids.push(Value::BulkString(format!("{id}-0").into_bytes()));
        at += 2;
    }
    Value::Array(vec![Value::Array(ids), Value::Array(Vec::new())])
}

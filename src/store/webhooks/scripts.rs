//! The scripts that change the webhooks. Each makes the change, the new version, the count and the announcement atomic.

use std::sync::LazyLock;

use redis::Script;

/// Puts the Lua function `change` before a script. It applies a change, increments the version and updates the count.
///
/// The count changes by as much as the change adds or removes. If webhooks were lost, the count therefore stays higher
/// than the number of webhooks until an operator declares the stored ones complete.
///
/// The last key is the audit log, and the last two arguments are its length and the entry for the change, or an empty
/// text for none. A change and its entry are therefore one step. The entry is written first, so a change whose entry is
/// refused is not made; and the entry is removed again if the change fails.
///
/// The version is incremented before the change: if it is not a number, the script fails before it changes anything.
macro_rules! change {
    ($body:literal) => {
        concat!(
            "
local function change(apply)
    local before = redis.call('HLEN', KEYS[1])
    local version = redis.call('GET', KEYS[2])
    local counted = redis.pcall('GET', KEYS[3])
    if type(counted) ~= 'string' then counted = '' end
    local count, at = string.match(counted, '^(%d+) (%d+)$')
    local noted
    if apply and ARGV[#ARGV] ~= '' then
        noted = redis.pcall('XADD', KEYS[#KEYS], 'MAXLEN', '~', ARGV[#ARGV - 1], '*', 'entry', ARGV[#ARGV])
        if type(noted) == 'table' and noted.err then
            return {err = 'UNAUDITED ' .. noted.err}
        end
    end
    local raised
    local done, problem = pcall(function()
        raised = redis.call('INCR', KEYS[2])
        if apply then apply() end
    end)
    if not done then
        if noted then redis.pcall('XDEL', KEYS[#KEYS], noted) end
        return type(problem) == 'table' and problem or {err = problem}
    end
    local after = redis.call('HLEN', KEYS[1])
    local expected = after
    if count and at == version then expected = tonumber(count) + after - before end
    redis.call('SET', KEYS[3], string.format('%.0f %.0f', expected, raised))
    redis.pcall('PUBLISH', KEYS[2], 'changed')
    return {expected, after, raised, version and 0 or 1}
end
",
            $body
        )
    };
}

pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(change!("return change(function() redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end)"))
});

/// Puts a webhook, unless there is one with its id. The version 0 says that there is.
pub(super) static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(change!(
        "
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return {0, 0, 0, 0} end
return change(function() redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end)"
    ))
});

pub(super) static REMOVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(change!(
        "
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
local changed = change(function()
    redis.call('HDEL', KEYS[1], ARGV[1])
    redis.pcall('HDEL', KEYS[4], ARGV[1])
    redis.pcall('ZREM', KEYS[5], ARGV[1])
    redis.pcall('DEL', KEYS[6])
    redis.pcall('DEL', KEYS[7])
end)
return changed.err and changed or 1"
    ))
});

/// Replaces a webhook if nobody has changed it since it was read.
pub(super) static SWAP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(change!(
        "
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local changed = change(function()
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
    if ARGV[4] == '1' then
        redis.pcall('HDEL', KEYS[4], ARGV[1])
        redis.pcall('ZREM', KEYS[5], ARGV[1])
    end
end)
return changed.err and changed or 1"
    ))
});

/// Makes workers read the webhooks again, without a change.
pub(super) static ANNOUNCE: LazyLock<Script> = LazyLock::new(|| Script::new(change!("change()")));

/// Declares the stored webhooks complete, at a version that is higher than every version that anyone saw. The old
/// version may be missing or of any type.
pub(super) static DECLARE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
local version = redis.pcall('GET', KEYS[2])
if type(version) ~= 'string' then version = '0' end
local number = string.match(version, '^%d+$') and tonumber(version) or 0
if number > 9007199254740992 then number = 0 end
local declared = string.format('%.0f', math.max(number + 1, tonumber(ARGV[1]) + 1, tonumber(ARGV[2])))
local count = redis.call('HLEN', KEYS[1])
redis.call('SET', KEYS[2], declared)
redis.call('SET', KEYS[4], declared)
redis.call('SET', KEYS[3], string.format('%.0f %s', count, declared))
redis.pcall('PUBLISH', KEYS[2], 'changed')
return count
",
    )
});

/// Writes the first version of a store that has none.
pub(super) static INITIALIZE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
if redis.call('SET', KEYS[2], 1, 'NX') then redis.call('SET', KEYS[3], '0 1') end
return nil
",
    )
});

//! The script that records a batch.

use std::sync::LazyLock;

use redis::Script;

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));

/// The script that records a batch.
///
/// It writes the sequence number first. A server that refuses all writes refuses this one, so the script fails before
/// it records anything. After a first accepted write, Redis lets a script go on writing.
pub(super) const CODE: &str = r"
local sequence_key, log_max, log_expire, log_oldest = ARGV[1], ARGV[4], ARGV[5], ARGV[6]
local success_key, success_expire, marks_expire = ARGV[7], ARGV[8], ARGV[9]
local lines, marks, failing_key = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local refused, is_refused = {}, {}
local call, type = redis.pcall, type
local function accepted(key, answer)
    if type(answer) ~= 'table' or not answer.err then return true end
    if not is_refused[key] then
        is_refused[key] = true
        refused[#refused + 1] = key
        refused[#refused + 1] = answer.err
    end
    return false
end
-- A cluster hands over the keys of a slot one by one. If one of these is on another node by now, or the cluster is down,
-- nothing is recorded, and the batch is sent again.
for number = #ARGV - tonumber(ARGV[19]) + 1, #ARGV do
    local there = call('EXISTS', ARGV[number])
    local problem = type(there) == 'table' and there.err or ''
    if string.find(problem, 'non local key', 1, true) or string.find(problem, 'cluster is down', 1, true) then
        return {err = 'CLUSTERDOWN a part of the keys is not on this node'}
    end
end
local recorded = redis.pcall('GET', sequence_key)
recorded = type(recorded) == 'string' and tonumber(recorded) or 0
local highest = string.format('%.0f', math.max(recorded, tonumber(ARGV[2])))
local written = call('SET', sequence_key, highest, 'EX', ARGV[3])
if not accepted(sequence_key, written) then
    local problem = written.err
    for _, code in ipairs({'READONLY', 'OOM', 'MISCONF', 'NOREPLICAS'}) do
        local at = string.find(problem, code .. ' ', 1, true)
        if at then return {err = string.gsub(string.sub(problem, at), '[\r\n]', '')} end
    end
end
local deaths, died_key, now = tonumber(ARGV[13]), ARGV[14], ARGV[15]
local missed, fields_max = tonumber(ARGV[16]), tonumber(ARGV[17])
local webhooks_key = ARGV[18]
local at = 20
local logs, counts = {}, {}
for _ = 1, lines do
    if tonumber(ARGV[at]) > recorded then
        local key, field = ARGV[at + 1], ARGV[at + 2]
        local id = call('XADD', key, 'MAXLEN', '~', log_max, '*', 'packed', ARGV[at + 5])
        if accepted(key, id) then
            logs[key] = true
            if ARGV[at + 4] == '1' then accepted(key, call('XTRIM', key, 'MINID', '~', log_oldest)) end
        end
        counts[field] = (counts[field] or 0) + 1
        local took = ARGV[at + 3]
        counts[took] = (counts[took] or 0) + 1
    end
    at = at + 6
end
for key in pairs(logs) do accepted(key, call('PEXPIRE', key, log_expire)) end
if next(counts) then
    for field, count in pairs(counts) do
        accepted(success_key, call('HINCRBY', success_key, field, count))
        -- A success ends the recorded failures of the webhook.
        if string.sub(field, -1) == '+' then
            accepted(failing_key, call('HDEL', failing_key, string.sub(field, 1, -2)))
        end
    end
    if not is_refused[success_key] then accepted(success_key, call('EXPIRE', success_key, success_expire)) end
end
for _ = 1, deaths do
    if tonumber(ARGV[at]) > recorded then
        local webhook = ARGV[at + 1]
        accepted(died_key, call('HSETNX', died_key, webhook .. ':since', now))
        accepted(died_key, call('HINCRBY', died_key, webhook, 1))
    end
    at = at + 2
end
for _ = 1, missed do
    -- A webhook that was deleted meanwhile misses nothing. Nobody would remove what was recorded for it.
    if tonumber(ARGV[at]) > recorded and call('HEXISTS', webhooks_key, ARGV[at + 6]) ~= 0 then
        local key, field = ARGV[at + 1], ARGV[at + 2]
        local lowest, highest = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
        local known = call('HGET', key, field)
        local value = now
        if string.sub(field, 1, 1) == 'r' then
            local first, last = string.match(type(known) == 'string' and known or '', '^(%d+):(%d+)$')
            lowest = math.min(tonumber(first) or lowest, lowest)
            highest = math.max(tonumber(last) or highest, highest)
            value = string.format('%.0f:%.0f', lowest, highest)
        end
        local size = call('HLEN', key)
        if known or type(size) ~= 'number' or size < fields_max then
            accepted(key, call('HSET', key, field, value))
        end
        accepted(key, call('HSETNX', key, 'since', now))
        accepted(key, call('HINCRBY', key, 'count', ARGV[at + 5]))
    end
    at = at + 7
end
local entries = {}
for number = 1, marks do
    local key = ARGV[at]
    local id = call('XADD', key, '*', 'm', ARGV[at + 1])
    if accepted(key, id) then
        accepted(key, call('EXPIRE', key, marks_expire))
        entries[number] = id
    else
        entries[number] = ''
    end
    at = at + 2
end
return {entries, refused}
";

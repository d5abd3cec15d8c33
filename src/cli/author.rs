//! Who runs a command, for the audit log.

use std::os::unix::fs::MetadataExt as _;

use crate::config::Config;
use crate::store::Keys;
use crate::store::audit::{AuditLog, Author};
use crate::store::connection::Connection;

/// The most characters of a user name.
const NAME_MAX: usize = 64;

/// The audit log of `config`.
pub fn audit_log(config: &Config, redis: &Connection) -> AuditLog {
    AuditLog::new(redis.clone(), &Keys::new(&config.redis.prefix), config.admin.audit_entries_max)
}

/// The person who runs this command: the user of the operating system who owns this process.
pub fn author() -> Author {
    // The environment says who it is only where the operating system can't be asked, because anybody can set it.
    let name = match std::fs::metadata("/proc/self") {
        Ok(process) => user_name(process.uid()),
        Err(_) => std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()),
    };
    Author::command_line(name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect())
}

/// The name of a user, or the number of one without a name, as it is usual in containers.
fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&users, uid).unwrap_or_else(|| format!("uid {uid}"))
}

fn name_in(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_of_the_password_file() {
        let users = "root:x:0:0:root:/root:/bin/sh\n# odd\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_in(users, 1000).as_deref(), Some("ann"));
        assert_eq!(name_in(users, 7), None);
    }
}

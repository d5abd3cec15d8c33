//! Shows the rights of `topics check --acls`: a line for each topic and group, and the rules that are missing.

use serde_json::{Value, json};

use crate::cli::output::note;
use crate::kafka::rights::{Compared, Kind, Operation};

fn joined(operations: &[Operation]) -> String {
    operations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The line of one topic or group.
pub(super) fn line(compared: &Compared) -> String {
    let needed = &compared.needed;
    let (state, operations) = match &compared.missing {
        Err(_) => ("unchecked", joined(&needed.operations)),
        Ok(missing) if missing.is_empty() => ("allowed", joined(&needed.operations)),
        Ok(missing) => ("refused", joined(missing)),
    };
    format!("{state:<9} {} {:<26} {operations}", needed.kind, needed.name)
}

/// The same as JSON. `missing` is null if the broker doesn't say what it allows.
pub(super) fn json(compared: &Compared) -> Value {
    let names = |operations: &[Operation]| operations.iter().map(ToString::to_string).collect::<Vec<_>>();
    let needed = &compared.needed;
    json!({
        "resource": needed.kind.to_string(),
        "name": needed.name,
        "needed": names(&needed.operations),
        "missing": compared.missing.as_deref().ok().map(names),
        "unchecked": compared.missing.as_ref().err(),
    })
}

/// Writes to stderr what couldn't be checked, and the commands that add the missing rules.
pub(super) fn report(rights: &[Compared]) {
    for Compared { needed, missing } in rights {
        if let Err(why) = missing {
            note(&format!("the rights on {} {} are not checked: {why}", needed.kind, needed.name));
        }
    }
    let commands: Vec<String> = rights.iter().filter_map(command).collect();
    if !commands.is_empty() {
        note("an operator adds what is missing with:");
        for command in commands {
            note(&command);
        }
    }
}

fn command(compared: &Compared) -> Option<String> {
    let missing = compared.missing.as_ref().ok().filter(|missing| !missing.is_empty())?;
    let operations: String = missing.iter().map(|operation| format!(" --operation {operation}")).collect();
    let Compared { needed, .. } = compared;
    let option = match needed.kind {
        Kind::Topic => "--topic",
        Kind::Group => "--group",
    };
    Some(format!(
        "  kafka-acls.sh --bootstrap-server HOST:PORT --command-config operator.properties --add \
         --allow-principal User:NAME{operations} {option} {}",
        needed.name
    ))
}

/// What an operator must change, if something is missing.
pub(super) fn problem(compared: &Compared) -> Option<String> {
    let missing = compared.missing.as_ref().ok().filter(|missing| !missing.is_empty())?;
    let Compared { needed, .. } = compared;
    Some(format!("{} {}: the broker doesn't allow {}", needed.kind, needed.name, joined(missing)))
}

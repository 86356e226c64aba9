//! `hearth bucket members` and `hearth bucket forget`: who takes part, and giving up what one of them owes.

use members::roster::{self, Seen};
use object_store::ObjectStore;
use serde_json::json;
use tokio::runtime::Runtime;

use super::print;
use super::table::{Table, colour, time};
use crate::commands::one_shot::CommandError;
use crate::say;

/// Lists them; always well.
pub(super) fn list(runtime: &Runtime, store: &dyn ObjectStore, as_json: bool) -> Result<bool, CommandError> {
    let all = runtime.block_on(roster::read_all(store)).map_err(CommandError::failed)?;
    if as_json {
        let one = |seen: &Seen| {
            let mut out = serde_json::to_value(&seen.member).unwrap_or_default();
            out["late"] = json!(seen.is_late());
            out
        };
        print(&json!(all.iter().map(one).collect::<Vec<_>>()));
        return Ok(true);
    }
    let mut table =
        Table::new(&["MEMBER", "ROLE", "ADDRESS", "ZONE", "GROUP", "SAMPLES", "LAST SEEN (UTC)", ""]);
    for seen in &all {
        let m = &seen.member;
        table.line(vec![
            m.name.clone(),
            m.role.clone(),
            m.address.clone(),
            m.zone.clone(),
            m.replica_group.clone(),
            if m.owes { "of its own" } else { "" }.to_owned(),
            time(m.beat_ms),
            if seen.is_late() { "away" } else { "" }.to_owned(),
        ]);
    }
    if table.is_empty() {
        say("nobody says that it takes part: processes of the role `all` do not\n");
    } else {
        say(format_args!("{}\n", table.render(colour())));
    }
    for seen in all.iter().filter(|s| s.member.owes && s.is_late()) {
        say(format_args!(
            "{} is away and has not flushed: queries name it until it is back, or until `hearth bucket forget {}`\n",
            seen.member.name, seen.member.name
        ));
    }
    Ok(true)
}

/// Takes a record away.
pub(super) fn forget(
    runtime: &Runtime,
    store: &dyn ObjectStore,
    name: &str,
    force: bool,
) -> Result<bool, CommandError> {
    runtime.block_on(async {
        let known = match roster::read_all(store).await {
            Ok(all) => all.into_iter().find(|seen| seen.member.name == name),
            // A record that nobody understands is the one to be forgotten, perhaps.
            Err(roster::RosterError::Damaged { .. }) => None,
            Err(e) => return Err(CommandError::failed(e)),
        };
        if known.is_some_and(|seen| seen.member.owes && !seen.is_late()) && !force {
            return Err(CommandError::Mend(format!(
                "{name} was there a moment ago, and would come back with its next beat: stop it first (with shutdown.flush it hands over what it has), or wait until `hearth bucket members` calls it away"
            )));
        }
        match roster::forget(store, name).await.map_err(CommandError::failed)? {
            true => {
                say(format_args!("{name} is forgotten: queries answer without what it has not flushed\n"));
                Ok(true)
            }
            false => Err(CommandError::Mend(format!(
                "nobody of the name {name:?} takes part: `hearth bucket members` lists who does"
            ))),
        }
    })
}

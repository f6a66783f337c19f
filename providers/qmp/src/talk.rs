//! The commands to a QEMU, in their order, and the handling of its answers.
//!
//! Invariant: the same whoever answers ([`Ask`]): a QEMU behind a socket, or a recording of one,
//! from which [`replay`] reads without I/O, clock or thread.

use vmstrobe_core::{Error, ErrorKind, Object, Result};
use vmstrobe_host::{CpuNames, Polled};

use super::ask::{Ask, Asked, Fault, QmpShare, REPLY_LIMIT};
use super::framer::Framer;
use super::message::{
    self, Answer, Anything, Cpu, Deserialize, Refusal, StatsResult, StatsSchema, VmName, quoted,
};
use super::peer::{self, Peer};
use super::table::{Query, Table};

/// The most characters of a VM's name.
const NAME_CHARS_MAX: usize = 128;

/// Asks for QEMU's name for its VM; gives `otherwise` if it has none.
pub(super) fn vm_name(qemu: &mut impl Ask, otherwise: &str) -> Asked<String> {
    let name = match qemu.ask("query-name", None) {
        Ok(VmName { name }) => name.filter(|name| !name.is_empty()),
        Err(Fault::Refused(_)) => None,
        Err(fault) => return Err(fault),
    };
    let name = name.unwrap_or_else(|| otherwise.to_owned());
    Ok(name.chars().take(NAME_CHARS_MAX).collect())
}

/// Asks for what changes seldom: the schemas, and the vCPUs' names.
pub(super) fn renew(qemu: &mut impl Ask, table: &mut Table, cpu_names: &CpuNames) -> Asked<()> {
    match qemu.ask::<Vec<StatsSchema>>("query-stats-schemas", None) {
        Ok(schemas) => table.set_schemas(&schemas)?,
        // It has answered before: what it said stays.
        Err(Fault::Refused(_)) if table.schemas().next().is_some() => {}
        Err(fault) => return Err(fault),
    }
    match qemu.ask::<Vec<Cpu>>("query-cpus-fast", None) {
        Ok(cpus) => cpu_names.replace(table.set_cpus(&cpus)?),
        Err(Fault::Refused(_)) => {}
        Err(fault) => return Err(fault),
    }
    Ok(())
}

/// Asks for the values of one target. True if the vCPUs' names should be asked for before the next
/// time. One failing vCPU fails the whole query (QEMU up to 10.2), which is `Refused`.
pub(super) fn values(qemu: &mut impl Ask, table: &mut Table, query: &Query) -> Asked<bool> {
    let asked_ns = qemu.clock_ns();
    let results = qemu.ask::<Vec<StatsResult<'_>>>("query-stats", Some(&query.arguments))?;
    Ok(table.apply(&query.target, &results, asked_ns)?)
}

/// Says why nothing can be had of that QEMU; `peer` looks at the process behind its socket, if that
/// is known.
pub(super) fn in_words(fault: Fault, socket: &str, peer: impl FnOnce() -> Option<Peer>) -> Error {
    match fault {
        Fault::Lost(error) => error,
        Fault::Late => {
            let why = peer::no_answer(peer().as_ref());
            let text =
                format!("the QEMU behind {socket} does not answer within {REPLY_LIMIT:?}: {why}");
            Error::new(ErrorKind::Busy, text)
        }
        Fault::Refused(Refusal { class, .. }) if class == "CommandNotFound" => {
            let text =
                format!("the QEMU behind {socket} has no query-stats: QEMU 7.1 and later have it");
            Error::new(ErrorKind::Unsupported, text)
        }
        Fault::Refused(Refusal { desc, .. }) => {
            let text = format!("the QEMU behind {socket} refuses the request: {}", quoted(&desc));
            Error::new(ErrorKind::Io, text)
        }
        Fault::Stopped => Error::new(ErrorKind::Io, format!("no longer asking {socket}")),
    }
}

/// The bytes that a QEMU has sent, from its greeting on.
struct Recording {
    framer: Framer,
    last_id: u64,
}

impl Recording {
    fn text(&mut self) -> Asked<std::ops::Range<usize>> {
        self.framer.next_text()?.ok_or(Fault::Late)
    }
}

impl Ask for Recording {
    fn ask<'a, T: Deserialize<'a>>(&'a mut self, _: &str, _: Option<&str>) -> Asked<T> {
        self.last_id += 1;
        let mut text = self.text()?;
        while message::is_event(self.framer.text(text.clone())) {
            text = self.text()?;
        }
        match message::answer(self.framer.text(text), self.last_id)? {
            Answer::Return(value) => Ok(value),
            Answer::Refused(refusal) => Err(Fault::Refused(refusal)),
        }
    }

    fn clock_ns(&self) -> u64 {
        0
    }
}

/// See [`Qmp::replay`](crate::Qmp::replay).
pub(super) fn replay(answers: &[u8], share: QmpShare) -> Result<Vec<(Object, Vec<u64>)>> {
    let mut recording = Recording { framer: Framer::default(), last_id: 0 };
    recording.framer.push(answers);
    let mut table = None;
    match replay_all(&mut recording, share, &mut table) {
        // It ends where it ends.
        Ok(()) | Err(Fault::Late) => {}
        Err(fault) => return Err(in_words(fault, "this recording", || None)),
    }
    let held = table.iter().flat_map(Table::held);
    Ok(held.map(|held| (held.object.clone(), held.block.words().copy())).collect())
}

fn replay_all(recording: &mut Recording, share: QmpShare, table: &mut Option<Table>) -> Asked<()> {
    let greeting = recording.text()?;
    message::greeting(recording.framer.text(greeting))?;
    recording.ask::<Anything>("qmp_capabilities", None)?;
    let table = table.insert(Table::new(share, &vm_name(recording, "qemu")?));
    let mut is_short = true;
    loop {
        if is_short {
            renew(recording, table, &CpuNames::default())?;
        }
        if table.queries().is_empty() {
            return Ok(());
        }
        is_short = false;
        for query in table.queries() {
            match values(recording, table, &query) {
                Ok(lacks_names) => is_short |= lacks_names,
                Err(Fault::Refused(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Finds tables: the processes that hold a memfd of a table's name.
//!
//! Invariant: looks only, by name; nothing is opened. Whether it is a table that can be read, who
//! borrows it finds out.

use std::collections::HashSet;
use std::fs;
use std::os::linux::fs::MetadataExt;

use vmstrobe_core::Result;

use crate::procfs;

/// What a table's memfd is called, before its provider's name.
pub(crate) const NAME_PREFIX: &str = "vmstrobe-table:";

/// A process's table, as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTable {
    /// The process that has it.
    pub pid: u32,
    /// What that process calls itself.
    pub comm: String,
    /// The provider's name, as the table is called.
    pub provider: String,
}

/// Finds all tables on this host that we may see; each once, in the process of the lowest id.
/// Processes that we may not look into are left out: `scan_all` counts them.
///
/// # Errors
/// `Io` if /proc cannot be read.
pub fn scan_tables() -> Result<Vec<FoundTable>> {
    let (mut found, mut files) = (Vec::new(), HashSet::new());
    for pid in procfs::pids()? {
        // Ended meanwhile, or not to be looked into.
        let Ok(links) = procfs::links(pid, table_name) else { continue };
        for (fd, provider) in links {
            let Ok(file) = fs::metadata(format!("/proc/{pid}/fd/{fd}")) else { continue };
            if files.insert((file.st_dev(), file.st_ino())) {
                found.push(FoundTable { pid, comm: procfs::comm(pid), provider });
            }
        }
    }
    Ok(found)
}

/// The provider's name in the link of a table's memfd.
pub(crate) fn table_name(link: &str) -> Option<String> {
    let name = link.strip_prefix("/memfd:")?.strip_prefix(NAME_PREFIX)?;
    // The kernel says so of every memfd.
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    Some(name.escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableWriter;

    #[test]
    fn a_table_is_told_by_its_name() {
        for (link, want) in [
            ("/memfd:vmstrobe-table:xyz (deleted)", Some("xyz")),
            ("/memfd:vmstrobe-table:a b (deleted)", Some("a b")),
            ("/memfd:vmstrobe-table:\u{1b}[2J (deleted)", Some("\\u{1b}[2J")),
            ("/memfd:vmstrobe-table: (deleted)", Some("")),
            ("/memfd:xyz (deleted)", None),
            ("/tmp/memfd:vmstrobe-table:xyz", None),
            ("socket:[1]", None),
        ] {
            assert_eq!(table_name(link).as_deref(), want, "{link}");
        }
    }

    #[test]
    fn a_table_of_this_process_is_found_once() {
        let table = TableWriter::new("find-me").unwrap();
        let again = table.descriptor().unwrap();
        let mine = |found: &FoundTable| found.pid == std::process::id();
        let mine = || scan_tables().unwrap().into_iter().filter(mine).collect::<Vec<_>>();
        let is_it = |found: &&FoundTable| found.provider == "find-me";
        assert_eq!(mine().iter().filter(is_it).count(), 1);
        drop((table, again));
        assert_eq!(mine().iter().filter(is_it).count(), 0);
    }
}

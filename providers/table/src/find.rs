//! Finds tables: the processes that hold memory of a table's name.
//!
//! It turns out only when such memory is borrowed whether it is a table that can be read.

use std::collections::HashSet;

use vmstrobe_host::{Host, Seen};

/// The name of a table's memfd, up to its provider's name.
pub(super) const NAME_PREFIX: &str = "vmstrobe-table:";

/// A process's table, as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTable {
    /// The process that has it.
    pub pid: u32,
    /// The command name of that process (`comm`), as it was written.
    pub comm: String,
    /// The provider's name, by the name of the table's memfd, as it was written. The table itself
    /// may say another.
    pub provider: String,
}

/// Returns the tables of these processes, each once: in the first process that does not merely read
/// it.
pub fn tables_of(host: &Host, seen: &[(u32, Seen)]) -> Vec<FoundTable> {
    let (mut found, mut files) = (Vec::new(), HashSet::new());
    let (readers, writers): (Vec<_>, Vec<_>) = seen.iter().partition(|(_, seen)| seen.is_reader);
    for (pid, seen) in writers.into_iter().chain(readers) {
        for table in seen.tables.iter().filter(|table| files.insert(table.inode)) {
            let provider = provider(&String::from_utf8_lossy(&table.name));
            found.push(FoundTable { pid: *pid, comm: host.comm(*pid), provider });
        }
    }
    found.sort_by_key(|table| table.pid);
    found
}

/// The provider's name, by what stands behind [`NAME_PREFIX`] in a link.
fn provider(name: &str) -> String {
    // The kernel says so of every memfd.
    name.strip_suffix(" (deleted)").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmstrobe_host::SeenTable;

    #[test]
    fn a_provider_is_told_by_the_name_of_the_memory() {
        for (name, want) in [
            ("xyz (deleted)", "xyz"),
            ("a b (deleted)", "a b"),
            ("\u{1b}[2J (deleted)", "\u{1b}[2J"),
            (" (deleted)", ""),
        ] {
            assert_eq!(provider(name), want);
        }
    }

    #[test]
    fn a_table_is_found_in_the_process_that_does_not_merely_read_it() {
        let table = |fd, inode| SeenTable { fd, name: b"x (deleted)".to_vec(), inode };
        let seen = |is_reader, inodes: &[u64]| {
            let tables = (10..).zip(inodes).map(|(fd, inode)| table(fd, *inode)).collect();
            Seen { tables, is_reader, ..Seen::default() }
        };
        let all = [(1, seen(true, &[7, 8])), (2, seen(false, &[7, 9, 9])), (3, seen(false, &[9]))];
        let found: Vec<u32> =
            tables_of(&Host::default(), &all).iter().map(|table| table.pid).collect();
        // The reader's own; both of the second, each once; none of the third.
        assert_eq!(found, [1, 2, 2]);
    }
}

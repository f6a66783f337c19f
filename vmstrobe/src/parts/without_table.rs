//! The stand-in for tables: no process has any.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::{Object, Provider, ReadPlan, Result, Schema, Source};
use vmstrobe_host::{Host, Seen};

/// A table that was found: never, in a program that is built without them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTable {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The name of the provider.
    pub provider: String,
}

/// Returns no table.
pub(crate) fn tables_of(_: &Host, _: &[(u32, Seen)]) -> Vec<FoundTable> {
    Vec::new()
}

/// A provider without tables.
#[derive(Debug)]
pub(crate) struct Tables;

impl Tables {
    pub(crate) fn on_host(_: Host) -> Result<Self> {
        Ok(Self)
    }

    pub(crate) fn attach(&self, _: u32) -> Result<usize> {
        Ok(0)
    }

    pub(crate) fn open_file(&self, path: &Path) -> Result<()> {
        Err(super::without(&format!("the table {}", path.display()), "table"))
    }

    pub(crate) fn provider_names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Provider for Tables {
    fn name(&self) -> &str {
        "table"
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(Vec::new())
    }

    fn objects(&self) -> Result<Vec<Object>> {
        Ok(Vec::new())
    }

    fn open(&self, _: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        Ok(Vec::new())
    }
}

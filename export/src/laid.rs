//! A layout, prepared for the columns of a file: the texts of its objects, and the place of each
//! column in its rows.
//!
//! Invariant: an object has one entry, in the order of the layout's rows.

use std::collections::HashMap;
use std::sync::Arc;

use vmstrobe_core::{Layout, Object};

use crate::columns::{Columns, Placement};
use crate::heads::Head;

/// A layout, prepared for the writer.
#[derive(Debug)]
pub(crate) struct Laid {
    pub(crate) layout: Arc<Layout>,
    pub(crate) placement: Placement,
    /// The distinct sets of groups that have a column: for each group whether it has.
    pub(crate) sets: Vec<Vec<bool>>,
    /// The set of each column.
    pub(crate) set_of: Vec<usize>,
    /// The texts of the dictionaries of VMs and of paths.
    pub(crate) vms: Vec<String>,
    pub(crate) paths: Vec<String>,
    /// The values of columns that are constant for an object.
    vm: Vec<Option<u64>>,
    vcpu: Vec<Option<u64>>,
    path: Vec<Option<u64>>,
    schema: Vec<Option<u64>>,
    object: Vec<Option<u64>>,
}

/// Texts, each with its number in a dictionary.
#[derive(Debug, Default)]
struct Texts {
    texts: Vec<String>,
    numbers: HashMap<String, u64>,
}

impl Texts {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.texts.len() as u64;
        self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        number
    }
}

impl Laid {
    /// Prepares a layout; `None` if the columns do not fit it. `vm` is the VM of objects whose path
    /// names none.
    pub(crate) fn new(layout: &Arc<Layout>, columns: &Columns, vm: Option<&str>) -> Option<Self> {
        let placement = columns.place(layout)?;
        let groups = layout.groups().len();
        let mut sets: Vec<Vec<bool>> = Vec::new();
        let set_of = placement.columns.iter().map(|places| {
            let mut set = vec![false; groups];
            places.iter().for_each(|(group, _)| set[*group] = true);
            sets.iter().position(|known| *known == set).unwrap_or_else(|| {
                sets.push(set);
                sets.len() - 1
            })
        });
        let set_of = set_of.collect();
        let (mut vms, mut paths) = (Texts::default(), Texts::default());
        let objects: Vec<(&Object, usize)> = layout
            .groups()
            .iter()
            .zip(&placement.schemas)
            .flat_map(|(group, &schema)| group.objects.iter().map(move |object| (object, schema)))
            .collect();
        let vm_of = |object: &Object| vm_name(&object.path).or(vm).map(|name| vms.number(name));
        Some(Self {
            layout: Arc::clone(layout),
            sets,
            set_of,
            vm: objects.iter().map(|(object, _)| *object).map(vm_of).collect(),
            vcpu: objects.iter().map(|(object, _)| object.index.map(u64::from)).collect(),
            path: objects.iter().map(|(object, _)| Some(paths.number(&object.path))).collect(),
            schema: objects.iter().map(|(_, schema)| Some(*schema as u64)).collect(),
            object: objects.iter().map(|(object, _)| Some(object.key)).collect(),
            vms: vms.texts,
            paths: paths.texts,
            placement,
        })
    }

    /// Returns the size of all texts, counting each once.
    pub(crate) fn text_bytes(&self) -> usize {
        self.vms.iter().chain(&self.paths).map(String::len).sum()
    }

    /// Returns the values of a column that is constant for an object; `None` if it is not.
    pub(crate) fn constants(&self, head: Head) -> Option<&[Option<u64>]> {
        match head {
            Head::Vm => Some(&self.vm),
            Head::Vcpu => Some(&self.vcpu),
            Head::Path => Some(&self.path),
            Head::Schema => Some(&self.schema),
            Head::Object => Some(&self.object),
            _ => None,
        }
    }
}

/// Returns the name of the VM that a path names: `web` of `/vm/web/vcpu[0]`.
pub(crate) fn vm_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/vm/")?;
    let name = name.split('/').next().unwrap_or(name);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_vm() {
        for (path, vm) in [
            ("/vm/web", Some("web")),
            ("/vm/web/vcpu[0]", Some("web")),
            ("/vm/web/machine/unattached/device[0]", Some("web")),
            ("/vm/", None),
            ("/machine/unattached/device[0]", None),
            ("vm/web", None),
        ] {
            assert_eq!(vm_name(path), vm, "{path}");
        }
    }
}

//! Names of columns, made unique: two providers may call their statistics alike, and nothing keeps
//! one provider from using a name twice.
//!
//! Invariant: the first statistic of a name has that name, and no two columns have one name.

use std::collections::{HashMap, HashSet};

use vmstrobe_core::Desc;

use super::{column_name, is_bucketed};

/// The names that are taken.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    /// The number with which the next statistic of a name is tried.
    next: HashMap<String, usize>,
}

impl Names {
    /// Takes the name of a column.
    pub(super) fn add(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    /// Takes the names of a statistic's columns, and returns the name before the bucket.
    pub(super) fn take(&mut self, provider: &str, desc: &Desc) -> String {
        let named = format!("{provider}.{}", desc.name);
        for name in [&*desc.name, &named] {
            if self.is_free(name, desc) {
                return self.take_all(name.to_owned(), desc);
            }
        }
        loop {
            let number = self.next.entry(named.clone()).or_insert(2);
            let name = format!("{named}#{number}");
            *number += 1;
            if self.is_free(&name, desc) {
                return self.take_all(name, desc);
            }
        }
    }

    fn is_free(&self, base: &str, desc: &Desc) -> bool {
        !base.is_empty() && columns(base, desc).all(|name| !self.taken.contains(&name))
    }

    fn take_all(&mut self, base: String, desc: &Desc) -> String {
        self.taken.extend(columns(&base, desc));
        base
    }
}

/// Returns the names of a statistic's columns.
fn columns(base: &str, desc: &Desc) -> impl Iterator<Item = String> {
    let numbered = is_bucketed(desc);
    (0..desc.size).map(move |bucket| column_name(base, numbered.then_some(bucket)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(name: &str) -> Desc {
        Desc::counter(name, 0)
    }

    #[test]
    fn later_statistics_of_a_name_are_told_apart() {
        let mut names = Names::default();
        names.add("tick");
        let taken = [("kvm", "tick"), ("kvm", "a"), ("xyz", "a"), ("xyz", "a"), ("xyz", "a")]
            .map(|(provider, name)| names.take(provider, &counter(name)));
        assert_eq!(taken, ["kvm.tick", "a", "xyz.a", "xyz.a#2", "xyz.a#3"]);
        assert_eq!(names.take("xyz", &counter("")), "xyz.");
    }

    #[test]
    fn buckets_avoid_the_names_of_others() {
        let mut names = Names::default();
        assert_eq!(names.take("kvm", &counter("wait_1")), "wait_1");
        let wait = Desc { size: 2, ..counter("wait") };
        assert_eq!(names.take("kvm", &wait), "kvm.wait");
        assert_eq!(names.take("kvm", &counter("kvm.wait_0")), "kvm.kvm.wait_0");
    }
}

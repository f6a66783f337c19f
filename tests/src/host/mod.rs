//! A host for one test: namespaces in which only the test's processes are visible, VMMs of several
//! kinds, and several vmstrobe processes.
//!
//! [`namespace`] runs a test there; [`run`] and [`serve_dir`] start `vmstrobe`; [`helper`] starts
//! programs that take commands, of which [`machine`], a VMM, is one; [`findings`] collects
//! failures, so that one run of a test shows all of them.

pub mod namespace;

pub mod helper;
pub mod machine;
pub mod descriptors;

pub mod run;
pub mod serve_dir;
pub mod findings;

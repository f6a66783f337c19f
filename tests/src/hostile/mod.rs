//! Hostile writers of tables, for the tests of readers. They run in another process, where they can
//! do anything that a foreign program can.
//!
//! [`modes`] is what they do, over a table in [`evil`]'s hands; [`honest`] ones keep the rules, and
//! [`child`] starts and ends them. What a table says is written down a second time in [`layout`];
//! [`reader`] reads by the code under test, with limits on how long that takes, and [`judge`] holds
//! one against the other.

pub mod layout;
pub mod images;
pub mod memory;
pub mod evil;

pub mod modes;
pub mod honest;
pub mod child;

pub mod reader;
pub mod judge;

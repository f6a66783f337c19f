//! Many VMs of one user beside a VM of another.

use std::time::Duration;

use vmstrobe_tests::host::findings::{Findings, is_so_within};

use crate::{END_LIMIT, attacker, is_served, serving_web, vm, with_the_machine};

/// The number of VMs of one user: more than there may be sockets.
const VMS: &str = "400";
/// The longest time until the VM of the other user is served among them.
const CROWDED_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn many_vms_of_one_user_leave_room_for_one_of_another() {
    let name = "hostile_host::crowds::many_vms_of_one_user_leave_room_for_one_of_another";
    with_the_machine(name, || {
        let mut found = Findings::default();
        let _web = vm("web", 4);
        let mut serve = serving_web();
        let _crowd = attacker(&["many", VMS, "vm"]);
        let _late = vm("late", 2);
        found.note("serve", serve.serves_within(CROWDED_LIMIT, "late", 2));
        is_served(&mut found, &serve, "web", 4);
        let some_are_served = is_so_within(CROWDED_LIMIT, || serve.names().len() > 2);
        found.must(some_are_served, || "none of the many is served".to_owned());
        found.note("serve", serve.terminate_within(END_LIMIT));
        found.none();
    });
}

//! Another client is not affected.

use super::harm;
use super::latency::others_hardly_notice;

#[test]
fn garbage_does_not_delay_another_client() {
    others_hardly_notice("garbage", harm::garbage);
}

#[test]
fn a_string_of_100_mb_does_not_delay_another_client() {
    others_hardly_notice("endless-string", harm::endless_string);
}

#[test]
fn nested_lists_do_not_delay_another_client() {
    others_hardly_notice("nested", harm::nested);
}

#[test]
fn half_requests_do_not_delay_another_client() {
    others_hardly_notice("halves", harm::halves);
}

#[test]
fn unread_replies_do_not_delay_another_client() {
    others_hardly_notice("unread", harm::unread);
}

#[test]
fn clients_that_leave_do_not_delay_another_client() {
    others_hardly_notice("leaves", harm::leaves_anywhere);
}

#[test]
fn many_clients_do_not_delay_another_client() {
    others_hardly_notice("crowd", harm::crowd);
}

#[test]
fn a_slow_reader_does_not_delay_another_client() {
    others_hardly_notice("slow-reader", harm::slow_reader);
}

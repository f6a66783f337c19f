//! A directory that another user has locked, which any user can who may read it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::run::Run;
use vmstrobe_tests::host::serve_dir::{ServeDir, answers_within};

use crate::{END_LIMIT, SERVE_LIMIT, attacker, goes_on_and_ends, vm, with_namespaces};

#[test]
fn a_locked_directory_keeps_no_server_from_serving() {
    let name = "hostile_host::locked::a_locked_directory_keeps_no_server_from_serving";
    with_namespaces(name, || {
        let mut found = Findings::default();
        let web = vm("web", 4);
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let all_may_read = Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), all_may_read).expect("chmod of our directory");
        let text = directory.path().to_str().expect("the path is text");
        let _lock = attacker(&["lock", text]);

        let socket = directory.path().join("one");
        let mut one = Run::start(&[
            "serve",
            "-p",
            &web.pid().to_string(),
            "--qmp",
            socket.to_str().expect("the path is text"),
        ]);
        let seen =
            answers_within(SERVE_LIMIT, &socket, 4).map_err(|why| format!("{why}: {}", one.said()));
        if found.note("serve --qmp", seen).is_some() {
            found.note("serve --qmp", one.terminate_within(END_LIMIT));
        }

        let mut all = ServeDir::in_directory(directory.path(), &["--all"]);
        found.note("serve", all.serves_within(SERVE_LIMIT, "web", 4));
        goes_on_and_ends(&mut found, &mut all);
        found.none();
    });
}

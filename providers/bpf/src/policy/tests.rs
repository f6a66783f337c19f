//! Tests of the states and errors that users see, also in a process without privileges.

use std::env;
use std::ffi::OsStr;
use std::process::Command;

use super::*;
use crate::tests::kernel;
use vmstrobe_core::Target;
use vmstrobe_kvm::BulkOpener;
use vmstrobe_testing::require;

impl Bpf {
    /// As if this were what had been found out when it was tried.
    pub(crate) fn as_tried(mode: BpfMode, kernel: Result<Kernel>) -> Self {
        let bpf = Self::new(mode);
        let kernel = kernel.map(Arc::new).map_err(|error| (error.kind(), format!("{error:#}")));
        *bpf.tried() = Some(kernel);
        bpf
    }
}

#[test]
fn each_state_has_its_words() {
    let text = |text: &str| text.to_owned();
    for (status, words) in [
        (BpfStatus::Off, "switched off"),
        (BpfStatus::Untried, "not tried"),
        (BpfStatus::Refused(text("no BTF")), "no BTF"),
        (BpfStatus::Open(text("may_goto, rdonly_cast")), "may_goto, rdonly_cast"),
        (BpfStatus::GivenUp(text("a fault")), "a fault"),
    ] {
        assert_eq!(status.to_string(), words);
    }
}

#[test]
fn off_is_never_tried() {
    let bpf = Bpf::off();
    assert_eq!((bpf.mode(), bpf.status()), (BpfMode::Off, BpfStatus::Off));
    for error in [
        bpf.check(),
        bpf.object_schema(&Target::Vm).map(drop),
        bpf.object_schema(&Target::Vcpu).map(drop),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "the BPF reader is switched off");
    }
    assert!(bpf.refusal().is_some() && bpf.warnings().is_empty());
    assert!(bpf.tried().is_none());
}

#[test]
fn it_is_tried_once_by_all_clones() {
    let Some(kernel) = kernel() else { return };
    let bpf = Bpf::new(BpfMode::Auto);
    let clone = bpf.clone();
    assert_eq!(clone.status(), BpfStatus::Untried);
    bpf.check().unwrap();
    assert_eq!(clone.status(), BpfStatus::Open(kernel.step().name().to_owned()));
    assert!(clone.refusal().is_none() && bpf.warnings().is_empty());
    let [first, second] = [&bpf, &clone].map(|bpf| bpf.kernel().unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(
        &bpf.object_schema(&Target::Vcpu).unwrap(),
        &clone.object_schema(&Target::Vcpu).unwrap()
    ));

    bpf.give_up("enough");
    bpf.give_up("more than enough");
    assert_eq!(clone.status(), BpfStatus::GivenUp("enough".to_owned()));
    assert!(clone.refusal().is_some());
    let warnings: Vec<String> = clone.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["the BPF reader is no longer used, and pread takes over: enough"]);
}

#[test]
fn a_refusal_stays_with_its_causes() {
    let cause = std::io::Error::other("the cause");
    let refused = Error::caused(ErrorKind::Denied, "no rights", cause);
    let bpf = Bpf::as_tried(BpfMode::Require, Err(refused));
    for _ in 0..2 {
        let error = bpf.check().unwrap_err();
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (ErrorKind::Denied, "no rights: the cause")
        );
    }
    assert_eq!(bpf.status(), BpfStatus::Refused("no rights: the cause".to_owned()));
    assert!(bpf.refusal().is_some());
}

const UNPRIVILEGED: &str = "policy::tests::without_privileges_it_is_denied";
/// Runs another program without any.
const SETPRIV: [&str; 5] =
    ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"];

/// In a process that has given its privileges up for good, but may use KVM.
#[test]
fn without_privileges_it_is_denied() {
    if env::var_os(UNPRIVILEGED).is_some() {
        let bpf = Bpf::new(BpfMode::Auto);
        let error = bpf.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let text = error.to_string();
        assert!(["CAP_BPF", "CAP_PERFMON"].iter().all(|name| text.contains(name)), "{text}");
        assert_eq!(bpf.status(), BpfStatus::Refused(text));
        assert!(bpf.refusal().is_some() && bpf.warnings().is_empty());
        return;
    }
    if kernel().is_none() {
        return;
    }
    let run = |args: &[&OsStr]| {
        let mut command = Command::new(SETPRIV[0]);
        let output = command.args(&SETPRIV[1..]).args(args).env(UNPRIVILEGED, "").output();
        let output = output.map_err(|error| error.to_string())?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    };
    if !require(SETPRIV[0], run(&["true".as_ref()]).map(drop)) {
        return;
    }
    let program = env::current_exe().unwrap();
    let said = run(&[program.as_ref(), "--exact".as_ref(), UNPRIVILEGED.as_ref()]).unwrap();
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn what_may_pass_is_tried_again() {
    for (kind, is_again) in [(ErrorKind::Io, true), (ErrorKind::Denied, false)] {
        let bpf = Bpf::as_tried(BpfMode::Auto, Err(Error::new(kind, "as it was")));
        let is_known = bpf.check().is_err_and(|error| error.to_string() == "as it was");
        assert_eq!(is_known, !is_again, "{kind:?}");
    }
}

//! Tests of the states and errors that users see, also in a process without privileges.

use std::env;
use std::ffi::OsStr;
use std::process::Command;

use super::*;
use crate::kvm::bpf::tests::kernel;
use crate::tests::require;

impl Accel {
    /// As if this were what had been found out when it was tried.
    pub(in crate::kvm::bpf) fn as_tried(mode: AccelMode, kernel: Result<Kernel>) -> Self {
        let accel = Self::new(mode);
        let kernel = kernel.map(Arc::new).map_err(|error| (error.kind(), with_causes(&error)));
        *accel.tried() = Some(kernel);
        accel
    }
}

#[test]
fn each_state_has_its_words() {
    let text = |text: &str| text.to_owned();
    for (status, words) in [
        (AccelStatus::Off, "switched off"),
        (AccelStatus::Untried, "not tried"),
        (AccelStatus::Refused(text("no BTF")), "no BTF"),
        (AccelStatus::Open(text("may_goto, rdonly_cast")), "may_goto, rdonly_cast"),
        (AccelStatus::GivenUp(text("a doubt")), "a doubt"),
    ] {
        assert_eq!(status.to_string(), words);
    }
}

#[test]
fn off_is_never_tried() {
    let accel = Accel::off();
    assert_eq!((accel.mode(), accel.status()), (AccelMode::Off, AccelStatus::Off));
    for error in [accel.check(), accel.vm_schema().map(drop), accel.vcpu_schema().map(drop)] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "the kernel-side tick is switched off");
    }
    assert!(!accel.is_open() && accel.warnings().is_empty());
    assert!(accel.tried().is_none());
}

#[test]
fn it_is_tried_once_by_all_clones() {
    let Some(kernel) = kernel() else { return };
    let accel = Accel::new(AccelMode::Auto);
    let clone = accel.clone();
    assert_eq!(clone.status(), AccelStatus::Untried);
    accel.check().unwrap();
    assert_eq!(clone.status(), AccelStatus::Open(kernel.step().name().to_owned()));
    assert!(clone.is_open() && accel.warnings().is_empty());
    let [first, second] = [&accel, &clone].map(|accel| accel.kernel().unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&accel.vcpu_schema().unwrap(), &clone.vcpu_schema().unwrap()));

    accel.give_up("enough");
    accel.give_up("more than enough");
    assert_eq!(clone.status(), AccelStatus::GivenUp("enough".to_owned()));
    assert!(!clone.is_open());
    let warnings: Vec<String> = clone.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["the kernel-side tick is given up, pread takes over: enough"]);
}

#[test]
fn a_refusal_stays_with_its_causes() {
    let cause = std::io::Error::other("the cause");
    let refused = Error::caused(ErrorKind::Denied, "no rights", cause);
    let accel = Accel::as_tried(AccelMode::Require, Err(refused));
    for _ in 0..2 {
        let error = accel.check().unwrap_err();
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (ErrorKind::Denied, "no rights: the cause")
        );
    }
    assert_eq!(accel.status(), AccelStatus::Refused("no rights: the cause".to_owned()));
    assert!(!accel.is_open());
}

const UNPRIVILEGED: &str = "kvm::bpf::accel::tests::without_privileges_it_is_denied";
/// Runs another program without any.
const SETPRIV: [&str; 5] =
    ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"];

/// In a process that has given its privileges up for good, but may use KVM.
#[test]
fn without_privileges_it_is_denied() {
    if env::var_os(UNPRIVILEGED).is_some() {
        let accel = Accel::new(AccelMode::Auto);
        let error = accel.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let text = error.to_string();
        assert!(["CAP_BPF", "CAP_PERFMON"].iter().all(|name| text.contains(name)), "{text}");
        assert_eq!(accel.status(), AccelStatus::Refused(text));
        assert!(!accel.is_open() && accel.warnings().is_empty());
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
        let accel = Accel::as_tried(AccelMode::Auto, Err(Error::new(kind, "as it was")));
        let is_known = accel.check().is_err_and(|error| error.to_string() == "as it was");
        assert_eq!(is_known, !is_again, "{kind:?}");
    }
}

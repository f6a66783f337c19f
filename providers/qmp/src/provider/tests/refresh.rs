//! A real QEMU, asked now.

use super::*;
use crate::provider::REFRESH_LIMIT;

/// More than anything takes here that does not wait, on a machine with other things to do.
const AT_ONCE: Duration = Duration::from_millis(500);

#[test]
fn what_a_real_qemu_has_now_is_there_after_a_refresh() {
    let Some(mut qemu) = kvm_qemu() else { return };
    let qmp = qemu.connect(QmpShare::All);
    let objects = qmp.objects().unwrap();
    for object in &objects {
        let mut source = open_all(&qmp, std::slice::from_ref(object)).remove(0);
        for _ in 0..20 {
            qmp.refresh(object.schema.target()).unwrap();
            assert_eq!(states(&mut *source, object), [RowState::Good], "{}", object.path);
        }
    }
    let has = |id| shown(&qmp).contains(&crypto(id));
    for at in 0..10 {
        let device = json!({"qom-type": "cryptodev-backend-builtin", "id": "late"});
        qemu.execute("object-add", device);
        qmp.refresh(&Target::Cryptodev).unwrap();
        assert!(has("late") && has("c1"), "{at}: {:?}", shown(&qmp));
        qemu.execute("object-del", json!({"id": "late"}));
        qmp.refresh(&Target::Cryptodev).unwrap();
        assert!(!has("late") && has("c1"), "{at}: {:?}", shown(&qmp));
    }
}

#[test]
fn a_refresh_takes_little_more_than_qemu_does() {
    const TIMES: usize = 200;
    let Some(mut qemu) = kvm_qemu() else { return };
    let qmp = qemu.connect(QmpShare::All);
    for target in [Target::Vm, Target::Vcpu, Target::Cryptodev] {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let before = Instant::now();
            qemu.stats(target.name());
            theirs.push(before.elapsed());
            let before = Instant::now();
            qmp.refresh(&target).unwrap();
            ours.push(before.elapsed());
        }
        theirs.sort_unstable();
        ours.sort_unstable();
        let (theirs, ours) = (theirs[TIMES / 2], ours[TIMES / 2]);
        println!("{}: a refresh takes {ours:?}, a query {theirs:?}", target.name());
        // Not the rest of a round's 100 ms.
        assert!(ours < theirs * 2 + Duration::from_millis(5), "{ours:?}, {theirs:?}");
    }
}

#[test]
fn a_stopped_qemu_is_busy_and_a_dead_one_is_gone() {
    let Some(qemu) = kvm_qemu() else { return };
    let qmp = qemu.connect(QmpShare::All);
    let objects = qmp.objects().unwrap();
    let mut source = open_all(&qmp, &objects[3..]).remove(0);
    qmp.refresh(&Target::Cryptodev).unwrap();
    qemu.signal(Signal::STOP);
    let before = Instant::now();
    let error = qmp.refresh(&Target::Cryptodev).unwrap_err();
    let took = before.elapsed();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(took >= REFRESH_LIMIT && took < REFRESH_LIMIT + AT_ONCE, "{took:?}");
    qemu.signal(Signal::CONT);
    qmp.refresh(&Target::Cryptodev).unwrap();
    assert_eq!(states(&mut *source, &objects[3]), [RowState::Good]);
    assert_eq!(qmp.objects().unwrap(), objects, "the same connection");

    qemu.signal(Signal::KILL);
    // Until it has died, it may answer.
    let is_gone = || {
        qmp.refresh(&Target::Cryptodev).unwrap();
        states(&mut *source, &objects[3]) == [RowState::Gone]
    };
    assert!(soon(AT_ONCE, is_gone));
    qmp.refresh(&Target::Vm).unwrap();
    assert!(qmp.objects().unwrap().is_empty());
}

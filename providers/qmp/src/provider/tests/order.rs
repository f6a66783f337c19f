//! In what order a real QEMU's objects, statistics and buckets stand: as they were made, which its
//! answers turn round.

use super::*;
use vmstrobe_kvm::OwnKvm;

#[test]
fn crypto_devices_stand_in_the_reverse_of_qemus_order() {
    if !has_qemu() {
        return;
    }
    let devices = ["c1", "zz", "a0"].map(|id| format!("cryptodev-backend-builtin,id={id}"));
    let arguments: Vec<&str> = devices.iter().flat_map(|device| ["-object", device]).collect();
    let mut qemu = Qemu::start(&[&["-accel", "tcg"], &arguments[..]].concat());
    let qmp = qemu.connect(QmpShare::All);
    for plugged in [None, Some("b9"), Some("m5")] {
        if let Some(id) = plugged {
            let device = json!({"qom-type": "cryptodev-backend-builtin", "id": id});
            qemu.execute("object-add", device);
            qmp.refresh(&Target::Cryptodev).unwrap();
        }
        let theirs = qemu.stats("cryptodev");
        let theirs: Vec<&str> =
            theirs.iter().rev().map(|object| object["qom-path"].as_str().unwrap()).collect();
        let ours = qmp.objects().unwrap();
        let ours: Vec<&str> = ours.iter().map(|object| &*object.path).collect();
        assert_eq!(ours, theirs);
        println!("{ours:?}");
    }
    let schema = &qmp.schemas().unwrap()[0];
    let names: Vec<&str> = schema.descs().iter().map(|desc| &*desc.name).collect();
    assert_eq!((names[0], names[11]), ("sym-encrypt-ops", "asym-verify-bytes"));
    assert_eq!(names[..4], SYM);
}

#[test]
fn a_vms_statistics_stand_in_the_kernels_order() {
    let Some(qemu) = kvm_qemu() else { return };
    let guest = vmstrobe_testing::vm().unwrap();
    let own = OwnKvm::new("own", guest.fd()).unwrap();
    let names = |provider: &dyn Provider| -> Vec<Box<str>> {
        let schemas = provider.schemas().unwrap();
        let schema = schemas.iter().find(|schema| *schema.target() == Target::Vm).unwrap();
        schema.descs().iter().map(|desc| desc.name.clone()).collect()
    };
    let kernels = names(&own);
    assert!(kernels.len() > 1);
    assert_eq!(names(&qemu.connect(QmpShare::All)), kernels);
}

//! The kernel's names for KVM's descriptors, as they stand in `/proc/<pid>/fd`.

/// The object of KVM's that an fd of a VMM leads to, by its link in `/proc/<pid>/fd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvmLink {
    /// A VM: `anon_inode:kvm-vm`.
    Vm,
    /// The vCPU of that id: `anon_inode:kvm-vcpu:N`.
    Vcpu(u32),
    /// A VM's statistics: `anon_inode:kvm-vm-stats`.
    VmStats,
    /// The statistics of the vCPU of that id: `anon_inode:kvm-vcpu-stats:N`.
    VcpuStats(u32),
}

impl KvmLink {
    /// Whether statistics can be read from it, and with them who made it.
    pub fn is_stats(self) -> bool {
        matches!(self, Self::VmStats | Self::VcpuStats(_))
    }

    /// Reads a link; `None` if it leads to nothing of KVM's that has statistics.
    pub fn parse(link: &str) -> Option<Self> {
        let name = link.strip_prefix("anon_inode:")?;
        if let Some(id) = name.strip_prefix("kvm-vcpu:") {
            return id.parse().ok().map(Self::Vcpu);
        }
        if let Some(id) = name.strip_prefix("kvm-vcpu-stats:") {
            return id.parse().ok().map(Self::VcpuStats);
        }
        match name {
            "kvm-vm" => Some(Self::Vm),
            "kvm-vm-stats" => Some(Self::VmStats),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_the_kernels_names() {
        for (link, want) in [
            ("anon_inode:kvm-vm", Some(KvmLink::Vm)),
            ("anon_inode:kvm-vcpu:0", Some(KvmLink::Vcpu(0))),
            ("anon_inode:kvm-vcpu:1023", Some(KvmLink::Vcpu(1023))),
            ("anon_inode:kvm-vm-stats", Some(KvmLink::VmStats)),
            ("anon_inode:kvm-vcpu-stats:7", Some(KvmLink::VcpuStats(7))),
            ("anon_inode:kvm-vcpu-plane1:0", None),
            ("anon_inode:kvm-vcpu:", None),
            ("anon_inode:kvm-vcpu-stats:99999999999", None),
            ("anon_inode:kvm-vcpu-stats:-1", None),
            ("anon_inode:kvm-device", None),
            ("anon_inode:[eventpoll]", None),
            ("/tmp/anon_inode:kvm-vm", None),
            ("socket:[12]", None),
            ("", None),
        ] {
            assert_eq!(KvmLink::parse(link), want, "{link}");
        }
    }
}

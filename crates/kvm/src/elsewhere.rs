//! The part of the backend on hosts other than aarch64 Linux: a clear error.

/// `/dev/kvm` of an arm64 host, which this host is not.
#[derive(Debug)]
pub enum Kvm {}

/// The reason why there is no vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The crate was compiled for another host.
    #[error(
        "KVM/arm64 is not available here: expected a program built for aarch64 Linux, this one is for {} {}; \
         `cargo xtask lab` runs one on real KVM without Arm hardware",
        std::env::consts::ARCH,
        std::env::consts::OS
    )]
    NotAvailable,
}

impl Kvm {
    /// # Errors
    /// [`Error::NotAvailable`], always.
    pub fn open() -> Result<Self, Error> {
        Err(Error::NotAvailable)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn opening_kvm_on_another_host_says_where_it_would_be() {
        let error = super::Kvm::open().unwrap_err().to_string();
        assert!(
            error.starts_with("KVM/arm64 is not available here: expected a program built for aarch64 Linux")
        );
        assert!(error.contains("cargo xtask lab"));
    }
}

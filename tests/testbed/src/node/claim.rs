//! Claim of a pod address that no other pod on this machine has, including pods of other testbeds.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;

use crate::address::Announced;

/// Port that is held on a pod's dialable address while the pod has it, so that no other testbed takes it. Pods cannot
/// use it.
const CLAIM_PORT: u16 = 10_249;

/// Address of a pod, released when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    announced: Announced,
    _listener: TcpListener,
}

impl Claim {
    /// Claims a free address. It is random, so that parallel testbeds rarely conflict.
    ///
    /// # Errors
    /// If no address can be listened on.
    pub(super) fn take() -> anyhow::Result<Self> {
        for _ in 0..100 {
            let announced = Announced::new(rand::random(), rand::random_range(1..=254));
            if let Ok(listener) = TcpListener::bind(announced.dialable(CLAIM_PORT)) {
                return Ok(Self { announced, _listener: listener });
            }
        }
        bail!("port {CLAIM_PORT} is free on no pod address")
    }

    /// Address in the pod's status. Nothing listens there.
    pub(super) fn announced(&self) -> Announced {
        self.announced
    }

    /// Address on which the pod's processes listen.
    pub(super) fn listening(&self) -> Ipv4Addr {
        self.announced.listening()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_address_cannot_be_claimed_again_until_its_release() {
        let claim = Claim::take().unwrap();
        let taken = claim.announced().dialable(CLAIM_PORT);
        assert!(TcpListener::bind(taken).is_err());
        drop(claim);
        assert!(TcpListener::bind(taken).is_ok());
    }
}

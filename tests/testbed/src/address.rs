//! Pod addresses. A pod announces 10.244.B.C, since the API server refuses loopback addresses in EndpointSlices. A pod
//! that is a process listens on 127.244.B.C, since only root can own 10.244.B.C. An announced address may therefore
//! belong to another machine: an [`Announced`] cannot be dialled unless the caller names the sort of pod.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use thiserror::Error;

/// Sort of the pods of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pods {
    /// Processes. They listen on loopback, not at their announced address.
    Processes,
    /// Containers with their own addresses.
    Containers,
}

/// Address of a pod in the API: 10.244.B.C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Announced {
    third: u8,
    fourth: u8,
}

/// Error for an address that is not of a pod of the testbed.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0} is not a pod address of the testbed: those are in 10.244.0.0/16")]
pub struct NotAPodAddress(String);

impl Announced {
    /// Returns the pod address 10.244.`third`.`fourth`.
    pub const fn new(third: u8, fourth: u8) -> Self {
        Self { third, fourth }
    }

    /// Returns the address as an [`IpAddr`], for comparison.
    pub const fn ip(self) -> IpAddr {
        IpAddr::V4(self.announced())
    }

    const fn announced(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.third, self.fourth)
    }

    /// Returns the loopback address on which a pod listens if it is a process.
    pub const fn dialable(self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.listening(), port)
    }

    /// Returns the address at which to dial a pod of this sort.
    pub const fn dialable_as(self, pods: Pods, port: u16) -> SocketAddrV4 {
        match pods {
            Pods::Processes => self.dialable(port),
            Pods::Containers => SocketAddrV4::new(self.announced(), port),
        }
    }

    /// Loopback address on which the pod's process listens.
    pub const fn listening(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 244, self.third, self.fourth)
    }
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "10.244.{}.{}", self.third, self.fourth)
    }
}

impl FromStr for Announced {
    type Err = NotAPodAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse().map(|address: Ipv4Addr| address.octets()) {
            Ok([10, 244, third, fourth]) => Ok(Self { third, fourth }),
            _ => Err(NotAPodAddress(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_announces_one_address_and_listens_on_loopback() {
        let address: Announced = "10.244.3.17".parse().unwrap();
        assert_eq!(address.to_string(), "10.244.3.17");
        assert_eq!(address.dialable_as(Pods::Processes, 8080).to_string(), "127.244.3.17:8080");
        assert_eq!(address.dialable_as(Pods::Containers, 8080).to_string(), "10.244.3.17:8080");
        assert!(address.listening().is_loopback());
    }

    #[test]
    fn no_other_address_is_of_a_pod() {
        for text in ["10.245.3.17", "10.0.0.1", "127.244.3.17", "192.168.0.1", "::1", "10.244.3", "localhost", ""] {
            assert_eq!(text.parse::<Announced>(), Err(NotAPodAddress(text.to_owned())));
        }
    }
}

//! The connections of one listener, limited in total and for each peer that is not a proxy. At the limit, the
//! connection that was idle for longest yields, so that silent clients do not block others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The connections of one listener.
pub(super) struct Connections {
    most: usize,
    most_of_peer: usize,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    freed: Notify,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    /// The counted address. None for a proxy, because its connections belong to many clients.
    peer: Option<IpAddr>,
    /// Number of requests with unfinished answers.
    requests: AtomicUsize,
    /// The last time when it was not idle.
    active: Mutex<Instant>,
    /// Cancelled to make the connection yield.
    pub(super) yields: CancellationToken,
}

/// A place among the connections, until it is dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    pub(super) connection: Arc<Connection>,
}

/// A request of a connection, until its answer ends.
pub(super) struct Asking(Arc<Connection>);

/// The reason why there is no place.
#[derive(Debug, PartialEq, Eq)]
enum NoPlace {
    /// The peer has the most connections that it may have, and uses all of them.
    OfPeer,
    /// All connections are in use.
    AtAll,
}

impl Connections {
    /// Returns a limit of connections, in total and for each peer.
    pub(super) fn new(most: usize, most_of_peer: usize) -> Self {
        Self { most, most_of_peer, open: Mutex::default(), freed: Notify::new() }
    }

    /// Waits for a place. Returns none if the peer has its share and uses all of it.
    pub(super) async fn admit(self: &Arc<Self>, number: u64, peer: Option<IpAddr>) -> Option<Place> {
        loop {
            // Registered before the check, so that no freed place is missed.
            let freed = self.freed.notified();
            match self.try_admit(number, peer) {
                Ok(connection) => return Some(Place { connections: Arc::clone(self), connection }),
                Err(NoPlace::OfPeer) => return None,
                Err(NoPlace::AtAll) => freed.await,
            }
        }
    }

    fn try_admit(&self, number: u64, peer: Option<IpAddr>) -> Result<Arc<Connection>, NoPlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_peers = |connection: &Connection| peer.is_some() && connection.peer == peer;
        if open.values().filter(|connection| is_peers(connection)).count() >= self.most_of_peer {
            yield_place(&mut open, is_peers).ok_or(NoPlace::OfPeer)?;
        } else if open.len() >= self.most {
            yield_place(&mut open, |_| true).ok_or(NoPlace::AtAll)?;
        }
        let (requests, active, yields) = (AtomicUsize::new(0), Mutex::new(Instant::now()), CancellationToken::new());
        let connection = Arc::new(Connection { number, peer, requests, active, yields });
        open.insert(number, Arc::clone(&connection));
        Ok(connection)
    }
}

/// Makes the longest-idle connection among the chosen ones yield, if any is idle.
fn yield_place(open: &mut HashMap<u64, Arc<Connection>>, choose: impl Fn(&Connection) -> bool) -> Option<()> {
    let idle = open.values().filter(|connection| choose(connection) && !connection.is_asking());
    let number = idle.min_by_key(|connection| connection.last_active())?.number;
    open.remove(&number)?.yields.cancel();
    Some(())
}

impl Connection {
    /// Records the start of a request.
    pub(super) fn begin(self: &Arc<Self>) -> Asking {
        self.requests.fetch_add(1, Ordering::SeqCst);
        Asking(Arc::clone(self))
    }

    /// True while a request has an unfinished answer.
    pub(super) fn is_asking(&self) -> bool {
        self.requests.load(Ordering::SeqCst) > 0
    }

    fn last_active(&self) -> Instant {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        *self.0.active.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.connection.number);
        self.connections.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn peer(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    fn admit(connections: &Arc<Connections>, number: u64, peer: Option<IpAddr>) -> Option<Place> {
        connections.admit(number, peer).now_or_never().expect("it does not wait")
    }

    #[test]
    fn without_room_the_longest_idle_connection_is_closed_and_one_in_use_is_not() {
        let connections = Arc::new(Connections::new(3, 3));
        let [used, old, new] = [1, 2, 3].map(|number| admit(&connections, number, None).unwrap());
        let asking = used.connection.begin();
        // The second connection was idle longer than the third, until it makes a request.
        drop(old.connection.begin());
        let fourth = admit(&connections, 4, None).unwrap();
        let yielded = [&used, &old, &new, &fourth].map(|place| place.connection.yields.is_cancelled());
        assert_eq!(yielded, [false, false, true, false]);

        let in_use = [&old, &fourth].map(|place| place.connection.begin());
        assert!(connections.admit(5, None).now_or_never().is_none(), "all are in use");
        drop(in_use);
        drop(asking);
        assert!(admit(&connections, 5, None).is_some());
    }

    #[test]
    fn one_peer_has_a_share_and_a_trusted_proxy_all() {
        let connections = Arc::new(Connections::new(100, 2));
        let places: Vec<Place> =
            (0..2).map(|number| admit(&connections, number, peer(1)).expect("its share")).collect();
        let _asking: Vec<Asking> = places.iter().map(|place| place.connection.begin()).collect();
        assert!(admit(&connections, 2, peer(1)).is_none(), "it uses its share");
        assert!(admit(&connections, 3, peer(2)).is_some(), "another peer has a share of its own");
        let of_proxy: Vec<_> = (10..20).map(|number| admit(&connections, number, None)).collect();
        assert!(of_proxy.iter().all(Option::is_some));
    }

    #[test]
    fn a_peer_replaces_only_its_own_idle_connections() {
        let connections = Arc::new(Connections::new(100, 1));
        let (other, own) = (admit(&connections, 0, peer(2)).unwrap(), admit(&connections, 1, peer(1)).unwrap());
        let next = admit(&connections, 2, peer(1));
        assert!(next.is_some() && own.connection.yields.is_cancelled() && !other.connection.yields.is_cancelled());
    }

    #[tokio::test]
    async fn a_waiting_connection_gets_the_next_free_place() {
        let connections = Arc::new(Connections::new(1, 1));
        let first = admit(&connections, 0, None).unwrap();
        let asking = first.connection.begin();
        let waiting = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.admit(1, None).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop((asking, first));
        assert!(waiting.await.unwrap());
    }
}

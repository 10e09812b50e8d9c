//! Places for work that outlives a request, limited in total and for each caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::token::Principal;

/// Tenant and object id of a caller.
type Caller = (String, String);

/// A limited number of places.
pub(super) struct Places {
    most: usize,
    most_of_caller: usize,
    taken: Mutex<HashMap<Caller, usize>>,
}

/// A place, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    caller: Caller,
}

/// The reason why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The caller has its full share.
    OfCaller,
    /// All places are taken.
    AtAll,
}

impl Places {
    /// Returns a limit of places, in total and for each caller.
    pub(super) fn new(most: usize, most_of_caller: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_caller, taken: Mutex::default() })
    }

    /// Takes a place for this caller.
    pub(super) fn take(self: &Arc<Self>, principal: &Principal) -> Result<Place, NoPlace> {
        let caller = (principal.tenant_id().to_owned(), principal.object_id().to_owned());
        let mut taken = self.lock();
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&caller).copied().unwrap_or(0));
        if own >= self.most_of_caller {
            return Err(NoPlace::OfCaller);
        }
        if all >= self.most {
            return Err(NoPlace::AtAll);
        }
        taken.insert(caller.clone(), own + 1);
        Ok(Place { places: Arc::clone(self), caller })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Caller, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(own) = taken.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::{CallerKind, CompactSet, Groups, Registration};

    use super::*;
    use crate::token::Application;

    fn principal(object_id: &str, client_id: &str) -> Principal {
        let caller = mcp_entra_policy::Caller {
            kind: CallerKind::Application,
            registration: Registration::Unknown,
            client_id: client_id.into(),
            roles: CompactSet::default(),
            groups: Groups::Known(CompactSet::default()),
            scopes: CompactSet::default(),
            authentication_contexts: CompactSet::default(),
        };
        let (tenant_id, object_id) = ("tenant".into(), object_id.into());
        Principal::Application(Application { tenant_id, object_id, caller: Arc::new(caller), expires_at: 0 })
    }

    #[test]
    fn a_caller_has_one_share_for_all_its_clients_and_all_callers_have_a_bound() {
        let places = Places::new(3, 2);
        let taken = [places.take(&principal("a", "one")).ok(), places.take(&principal("a", "two")).ok()];
        assert!(taken.iter().all(Option::is_some));
        assert_eq!(places.take(&principal("a", "three")).err(), Some(NoPlace::OfCaller));
        let other = places.take(&principal("b", "one")).ok();
        assert_eq!(places.take(&principal("c", "one")).err(), Some(NoPlace::AtAll));
        drop(other);
        assert!(places.take(&principal("c", "one")).is_ok());
        drop(taken);
        assert_eq!(places.lock().len(), 0, "a caller without a place is forgotten");
    }
}

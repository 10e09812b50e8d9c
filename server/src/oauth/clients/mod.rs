//! Clients of the authorization server, and the redirect URIs that each may use.

//! Addresses of the authorization server: issuer and endpoints, all below the public URL.

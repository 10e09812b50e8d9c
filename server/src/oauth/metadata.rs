//! Documents by which clients discover the authorization server (RFC 8414) and its signing keys (RFC 7517).

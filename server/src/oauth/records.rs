//! Records: values in the store, sealed, typed, and bound to their purpose and key.

//! Holds the charts to what they promise; everything is in the tests.

//! Policy of the machine: bounds that an administrator sets for every user of local mode.

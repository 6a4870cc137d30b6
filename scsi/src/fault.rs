//! Rules that tests break on purpose, one at a time, to show that the tests notice. In a release all of them hold.

holdfast_types::fault_switches! {
    /// P3: a unit attention for every look at an applied entry, not for a difference.
    AttentionPerEntry,
}

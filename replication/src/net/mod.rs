//! Links between data nodes.

mod wire;
